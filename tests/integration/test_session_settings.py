"""A whole day, whatever a database, a role or libpq's variables set for every session."""

from contextlib import closing
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url
from support.ledger import ledger_at
from support.pipeline import DAY, NOW, PipelineRunner, Registry
from support.smtpd import Smtpd

from token_pipelines.errors import LedgerError, SourceError
from token_pipelines.model import Mode

SETTINGS = {
    "DateStyle": "German, DMY",
    "IntervalStyle": "iso_8601",
    "TimeZone": "Asia/Tokyo",
    "array_nulls": "off",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "default_transaction_isolation": "serializable",
    "extra_float_digits": "-15",
    "search_path": "nowhere",
    "standard_conforming_strings": "off",
    "synchronous_commit": "off",
    "transform_null_equals": "on",
}
LIMITS = ("idle_in_transaction_session_timeout", "idle_session_timeout", "lock_timeout", "statement_timeout")
SAID = "CREATE TABLE public.said (token_id int, at timestamptz)"
ON_SENT = "INSERT INTO public.said SELECT id, :sent_at FROM public.api_tokens WHERE id IN :token_ids"


@pytest.fixture
def people(registry: Registry) -> list[str]:
    """Give the addresses of those who must be told today; one more must not be, as the day in Tokyo would have it."""
    registry.execute(SAID)
    for name in ("Jürgen", "Ada", "Łukasz"):
        user = registry.user(name, email=f"{ord(name[0])}@example.org", name=name)
        registry.token(user, expires_at=NOW + 2 * DAY, name=f"{name}'s \\ token")
    later = registry.user("later", email="later@example.org")
    registry.token(later, expires_at=NOW + 31 * DAY + timedelta(hours=3))
    return sorted(f"{ord(name[0])}@example.org" for name in ("Jürgen", "Ada", "Łukasz"))


def set_for_database(url: str, name: str, value: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        database = sql.Identifier(str(make_url(url).database))
        statement = sql.SQL("ALTER DATABASE {} SET {} = {}").format(database, sql.Identifier(name), sql.Literal(value))
        connection.execute(statement)


def test_day_is_right_whatever_the_database_sets(
    registry: Registry, database_url: str, people: list[str], relay: Smtpd, tmp_path: Path
) -> None:
    for name, value in SETTINGS.items():
        set_for_database(database_url, name, value)
        if name != "search_path":  # that of the source is the operator's
            set_for_database(registry.url, name, value)
    check_day(registry, database_url, people, relay, tmp_path)


def test_day_is_right_whatever_pgoptions_sets(
    registry: Registry,
    database_url: str,
    people: list[str],
    relay: Smtpd,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = SETTINGS.keys() - {"search_path", "client_encoding"}
    odd = " ".join(f"-c {name}={SETTINGS[name].replace(' ', '')}" for name in sorted(here))
    with monkeypatch.context() as patch:
        patch.setenv("PGOPTIONS", odd)
        pipeline = PipelineRunner(tmp_path, registry.url, relay.port, ledger_url=database_url)
        assert pipeline.run(NOW).sent == len(people)
        assert pipeline.run(NOW).numbers == {}


def test_limits_of_the_database_do_not_cut_the_ledgers_work(database_url: str) -> None:
    for name in LIMITS:
        set_for_database(database_url, name, "100ms")
    with closing(ledger_at(database_url)) as ledger, ledger.engine.connect() as connection:
        shown = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in LIMITS]
        connection.exec_driver_sql("SELECT pg_sleep(0.2)")
    assert shown == ["0"] * len(LIMITS)


@pytest.mark.parametrize(
    "variables",
    [
        {"PGTZ": "Asia/Tokyo", "PGDATESTYLE": "German", "PGCLIENTENCODING": "SQL_ASCII"},
        dict.fromkeys(["PGTZ", "PGDATESTYLE", "PGCLIENTENCODING"], "nonsense"),
    ],
    ids=["odd", "nonsense"],
)
def test_day_is_right_whatever_libpqs_variables_set(
    registry: Registry,
    database_url: str,
    people: list[str],
    relay: Smtpd,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    check_day(registry, database_url, people, relay, tmp_path)


def check_day(registry: Registry, ledger: str, people: list[str], relay: Smtpd, folder: Path) -> None:
    source = {"on_sent": ON_SENT}
    pipeline = PipelineRunner(folder, registry.url, relay.port, ledger_url=ledger, source=source)
    assert pipeline.run(NOW).numbers == {"sent": len(people)}
    assert sorted(accepted.recipient for accepted in relay.accepted) == people
    assert pipeline.run(NOW).numbers == {}
    assert registry.execute("SELECT count(*), bool_and(at > '2026-11-20 08:00Z') FROM public.said") == [(3, True)]
    told = {row["sent_at"] for row in pipeline.history()}
    assert all(str(at).startswith("2026-11-20T09:") for at in told)


def test_role_has_no_say_either(registry: Registry, people: list[str], relay: Smtpd, tmp_path: Path) -> None:
    role = f"odd_{make_url(registry.url).database}"
    try:
        registry.execute(f"CREATE ROLE {role} LOGIN SUPERUSER")
        for name in ("DateStyle", "TimeZone", "default_transaction_isolation", "array_nulls"):
            registry.execute(f"ALTER ROLE {role} SET {name} = '{SETTINGS[name]}'")
        url = make_url(registry.url).set(username=role).render_as_string(hide_password=False)
        pipeline = PipelineRunner(tmp_path, url, relay.port)
        assert [pipeline.run(NOW).sent, pipeline.run(NOW).sent] == [len(people), 0]
    finally:
        registry.execute(f"DROP OWNED BY {role} CASCADE")
        registry.execute(f"DROP ROLE {role}")


def test_read_only_by_default_is_named(
    registry: Registry, database_url: str, people: list[str], relay: Smtpd, tmp_path: Path
) -> None:
    """Whoever sets it means it: the product does not write where it is set."""
    assert people
    set_for_database(database_url, "default_transaction_read_only", "on")
    with pytest.raises(LedgerError) as caught:
        PipelineRunner(tmp_path, registry.url, relay.port, ledger_url=database_url).run(NOW)
    assert str(caught.value).endswith(
        "is a replica or read-only; point the URL at the primary, or turn off default_transaction_read_only for the"
        " role or the database."
    )
    assert relay.accepted == []


def test_read_only_by_default_is_named_by_on_sent(
    registry: Registry, database_url: str, people: list[str], relay: Smtpd, tmp_path: Path
) -> None:
    set_for_database(registry.url, "default_transaction_read_only", "on")
    pipeline = PipelineRunner(tmp_path, registry.url, relay.port, ledger_url=database_url, source={"on_sent": ON_SENT})
    assert pipeline.run(NOW).sent == len(people)
    statement = pipeline.parts(NOW).on_sent
    assert statement is not None
    with pytest.raises(SourceError, match="turn off default_transaction_read_only for the role or the database"):
        statement.try_out(NOW)


def test_encoding_of_the_environment_that_no_server_knows_is_not_asked_for(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(ledger_at(database_url)) as ledger:
        monkeypatch.setenv("PGCLIENTENCODING", "nonsense")
        assert ledger.told.before(Mode.LIVE) is None


def test_setting_that_the_server_refuses_names_where_it_comes_from(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, closing(ledger_at(database_url)) as ledger:
        patch.setenv("PGOPTIONS", "-c nonsense=1")
        with pytest.raises(LedgerError) as caught:
            ledger.migrate()
    assert str(caught.value).endswith(
        "refused a setting of this session; check PGOPTIONS, PGCLIENTENCODING, PGTZ and PGDATESTYLE in the environment,"
        " and the URL's options."
    )
