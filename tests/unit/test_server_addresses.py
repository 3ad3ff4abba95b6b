"""How a server is named in a sentence: never with a password, wherever its URL was put and however it was written."""

import re
from collections.abc import Callable

import pytest
from sqlalchemy import make_url

from token_pipelines.database import PSYCOPG2, DatabaseUrl, describe_url
from token_pipelines.errors import ConfigError

PIECE = re.compile(r"hush|bell", re.IGNORECASE)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://me:hush@db.example.org:5433/ops", "me@db.example.org:5433/ops"),
        ("postgresql://me:hush@[::1]:5433/ops", "me@::1:5433/ops"),
        ("postgresql:///ops?host=/run/postgresql&password=hush", "/run/postgresql/ops"),
        ("postgresql:///ops?host=a&host=b", "a,b/ops"),
        ("mysql://db.example.org/ops?passwd=hush", "db.example.org/ops"),
        ("sqlite:////var/lib/registry@home.db", "/var/lib/registry@home.db"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dhush", "localhost/"),
    ],
)
def test_url_is_shown_without_its_password(url: str, said: str) -> None:
    assert describe_url(make_url(url)) == said


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hu@bell@db.example.org/ops",
        "postgresql://me:hu@bell/hush@db.example.org/ops",
        "postgresql://me%3Ahush@db.example.org/ops",
        "postgresql:///ops?host=me:hush@db.example.org",
    ],
)
def test_url_that_cannot_be_taken_apart_is_not_shown(url: str) -> None:
    assert describe_url(make_url(url)) == "its URL is not shown, as it may hold a password"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "mysql", "mysql+pymysql", "demo"])
@pytest.mark.parametrize("key", ["source.url", "source.on_sent_url", "ledger.url", "DAGSTER_POSTGRES_URL"])
def test_at_sign_in_a_password_is_named_and_not_repeated(scheme: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DatabaseUrl.read(f"{scheme}://me:hu@bell@db.example.org:5432/ops", key)
    assert str(caught.value) == f"{key} has an @ in its user or password; write it there as %40."


def test_at_sign_that_is_escaped_is_part_of_the_password() -> None:
    assert (
        DatabaseUrl.read_postgres("postgresql://me:hu%40sh@db/ops", "ledger.url", PSYCOPG2).parsed.password == "hu@sh"
    )


def test_url_of_the_demo_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        DatabaseUrl.read("demo://me:hush@registry", "source.url")
    assert not PIECE.search(str(caught.value))
    assert str(caught.value).startswith("source.url begins with demo://, as the demo's do; run `token-pipelines demo`")


@pytest.mark.parametrize(
    "host",
    ["smtp://mailer:hush@mail.example.org", "smtp://mail.example.org", "mailer:hush@mail.example.org", "mail/hush", ""],
)
def test_relay_that_is_no_bare_host_is_refused_and_not_repeated(refusal: Callable[..., str], host: str) -> None:
    said = refusal(smtp__host=host)
    assert said.endswith(
        "smtp.host: must be the bare name of a host, like mail.example.org; a user goes into smtp.username."
    )
    assert not PIECE.search(said)


def test_relay_may_be_an_address(load_with: Callable[..., object]) -> None:
    for host in ("localhost", "127.0.0.1", "::1", "fe80::1%eth0", "mail_1.example.org", "bücher.example"):
        load_with(smtp__host=host)


@pytest.mark.parametrize(
    "key",
    [
        "smtp__port",
        "smtp__rate",
        "smtp__timeout",
        "smtp__security",
        "source__timezone",
        "schedule__at",
        "schedule__start_date",
        "schedule__grace",
        "email__links__manage",
        "delivery__redirect_to",
        "delivery__mode",
    ],
)
def test_url_at_any_other_key_is_refused_and_not_repeated(refusal: Callable[..., str], key: str) -> None:
    for url in ("postgresql://me:hush@db.example.org/ops", "postgresql://db.example.org/ops?password=hush"):
        assert not PIECE.search(refusal(**{key: url}))


@pytest.mark.parametrize(
    "url", ["mysql://db/ops?ssl_key_password=hush", "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dhush"]
)
def test_password_among_the_options_of_a_url_in_the_file_is_refused(refusal: Callable[..., str], url: str) -> None:
    said = refusal(source__url=url)
    assert "source.url holds a password, which does not belong in the file" in said
    assert not PIECE.search(said)
