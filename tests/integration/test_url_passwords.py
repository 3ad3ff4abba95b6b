"""Passwords with characters that have a meaning in URLs: used as they are, wherever a URL is, and printed nowhere."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import URL, create_engine, make_url, text
from support.databases import OpenDatabase
from support.mariadbd import MariaDB
from support.pipeline import DAY, NOW, PipelineRunner, Registry
from support.smtpd import Smtpd

from token_pipelines.config import Source as SourceConfig
from token_pipelines.database import PSYCOPG2, DatabaseUrl
from token_pipelines.demo.postgres import EmbeddedPostgres
from token_pipelines.errors import ConfigError
from token_pipelines.source.source import open_reader

PASSWORDS = ["a+b", "a%2Bb", "a b", " a ", "a@b/c#d?e", "a:b&c=d;e", "a'b\\c\"d", "%", "äb", "ä€🦀", "a%b%20c"]
HBA = "local all secretive scram-sha-256\n"


@pytest.fixture
def secretive(postgres_server: EmbeddedPostgres, registry_url: str) -> Iterator[URL]:
    """Give the URL of a role that has to show its password; the test sets it."""
    with psycopg.connect(registry_url, autocommit=True) as connection:
        [file] = connection.execute("SHOW hba_file").fetchone() or [""]
        before = Path(file).read_text(encoding="utf-8")
        Path(file).write_text(HBA + before, encoding="utf-8")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("CREATE ROLE secretive LOGIN SUPERUSER PASSWORD 'none'")
        yield make_url(registry_url).set(username="secretive")
        connection.execute("DROP OWNED BY secretive CASCADE")
        connection.execute("DROP ROLE secretive")
        Path(file).write_text(before, encoding="utf-8")
        connection.execute("SELECT pg_reload_conf()")
    assert postgres_server.owned


def set_password(url: str, password: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER ROLE secretive PASSWORD {}").format(sql.Literal(password)))


def as_operators_write_it(url: URL, password: str) -> list[str]:
    """Every character escaped; and those bare that need not be."""
    with_mark = url.set(password="PASSWORD").render_as_string(hide_password=False)
    return [with_mark.replace("PASSWORD", quote(password, safe=safe)) for safe in ("", "+ &=;'")]


@pytest.mark.parametrize("password", PASSWORDS)
def test_password_of_postgres_is_used_as_it_is(registry_url: str, secretive: URL, password: str) -> None:
    set_password(registry_url, password)
    for url in as_operators_write_it(secretive, password):
        reader = open_reader(SourceConfig.model_validate({"url": url, "query": "crates_io"}))
        assert reader.lag() is None
        storage = DatabaseUrl.read_postgres(url, "DAGSTER_POSTGRES_URL", PSYCOPG2).parsed
        again = create_engine(storage.render_as_string(hide_password=False))  # as Dagster gets it
        with closing(again.connect()) as connection:
            assert connection.execute(text("SELECT 1")).scalar() == 1
        again.dispose()


def test_whole_day_with_such_a_password(
    registry: Registry, secretive: URL, relay: Smtpd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = "a+b%2B c@/#?'"
    set_password(registry.url, password)
    registry.execute("CREATE TABLE said (token_id int)")
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 2 * DAY)
    for url in as_operators_write_it(secretive, password):
        for key in ("SOURCE__URL", "SOURCE__ON_SENT_URL", "LEDGER__URL"):
            monkeypatch.setenv(f"TOKEN_PIPELINES__{key}", url)
        source = {"on_sent": "INSERT INTO said SELECT id FROM api_tokens WHERE id IN :token_ids"}
        PipelineRunner(tmp_path, registry.url, relay.port, source=source).run(NOW)
    assert [accepted.recipient for accepted in relay.accepted] == ["ada@example.org"]
    assert registry.execute("SELECT count(*) FROM said") == [(1,)]


@pytest.mark.parametrize("password", PASSWORDS)
def test_password_of_mariadb_is_used_as_it_is(
    mariadb_server: MariaDB, open_database: OpenDatabase, password: str
) -> None:
    maria = open_database("mariadb")
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    maria.execute(f"CREATE USER secretive@localhost IDENTIFIED BY '{quoted}'")
    try:
        url = mariadb_server.url("information_schema", "secretive")
        for written in as_operators_write_it(url, password):
            reader = open_reader(SourceConfig.model_validate({"url": written, "query": "crates_io"}))
            with reader._connection() as connection:  # type: ignore[attr-defined]  # noqa: SLF001 -- a login is enough
                assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    finally:
        maria.execute("DROP USER secretive@localhost")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hu@bell/hush@db.example.org/ops",
        "postgresql://me:hu@bell?hush@db.example.org/ops",
        "postgresql://me:hu@bell?hush=bell@db.example.org/ops",
        "postgresql://me:hu@bell#hush@db.example.org/ops",
        "mysql://me:@hush@db.example.org/ops",
        "mysql+pymysql://me:hush@@db.example.org/ops",
    ],
)
@pytest.mark.parametrize("key", ["source.url", "source.on_sent_url", "ledger.url", "DAGSTER_POSTGRES_URL"])
def test_second_at_sign_is_refused_and_not_repeated(url: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        DatabaseUrl.read(url, key)
    assert str(caught.value) == f"{key} has an @ in its user or password; write it there as %40."


def test_path_of_a_file_may_hold_at_signs() -> None:
    assert DatabaseUrl.read("sqlite:////srv/a@b/c@d.db", "source.url").parsed.database == "/srv/a@b/c@d.db"
