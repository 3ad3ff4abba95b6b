"""A real PgBouncer between the product and its Postgres: whatever the pool's mode, everybody is told once."""

from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from support.ledger import ledger_at
from support.pgbouncerd import OpenPooler
from support.pipeline import DAY, NOW, PipelineRunner, Registry, write_config
from support.smtpd import Smtpd

from token_pipelines.config import Source as SourceConfig
from token_pipelines.errors import LedgerError
from token_pipelines.model import Mode
from token_pipelines.source.source import Source

PEOPLE = 60
IGNORES = pytest.mark.parametrize("ignored", ["", "options"], ids=["strict", "ignores-options"])
MODES = pytest.mark.parametrize("mode", ["session", "transaction"])


def people(registry: Registry, number: int = PEOPLE) -> None:
    for index in range(number):
        registry.token(registry.user(f"p{index}", email=f"p{index}@example.org"), expires_at=NOW + 2 * DAY)


@MODES
@IGNORES
def test_whole_day_through_a_pooler_tells_everybody_once(
    pgbouncer: OpenPooler, registry: Registry, relay: Smtpd, tmp_path: Path, mode: str, ignored: str
) -> None:
    people(registry)
    registry.execute("CREATE TABLE said (token_id int, at timestamptz)")
    url = pgbouncer(mode=mode, ignored=ignored).url(registry.url)
    on_sent = "INSERT INTO said SELECT id, :sent_at FROM api_tokens WHERE id IN :token_ids"
    source = {"url": url, "on_sent": on_sent}
    pipeline = PipelineRunner(tmp_path, url, relay.port, ledger_url=url, source=source, smtp={"connections": 4})
    assert pipeline.run(NOW).numbers == {"sent": PEOPLE}
    assert pipeline.run(NOW).numbers == {}
    assert len({accepted.recipient for accepted in relay.accepted}) == len(relay.accepted) == PEOPLE
    assert registry.execute("SELECT count(DISTINCT token_id), count(*) FROM said") == [(PEOPLE, PEOPLE)]
    assert {entry["state"] for entry in pipeline.history()} == {"sent"}
    assert schemas(registry) == ["token_pipelines"]


def schemas(registry: Registry) -> list[str]:
    """The schemas that hold a table of the ledger."""
    return [str(name) for (name,) in registry.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'notices'")]


@MODES
def test_pipelines_behind_a_pooler_stay_apart(
    pgbouncer: OpenPooler, registry: Registry, relay: Smtpd, tmp_path: Path, mode: str
) -> None:
    people(registry, 3)
    url = pgbouncer(mode=mode, ignored="options").url(registry.url)
    path = write_config(tmp_path, url, relay.port, pipelines={"user_tokens": {}, "deploy_keys": {}})
    runners = [PipelineRunner.named(path, name) for name in ("user_tokens", "deploy_keys")]
    assert [runner.run(NOW).sent for runner in runners] == [3, 3]
    assert [runner.run(NOW).sent for runner in runners] == [0, 0]
    assert sorted(schemas(registry)) == ["token_pipelines_deploy_keys", "token_pipelines_user_tokens"]


@MODES
def test_settings_of_another_client_do_not_reach_the_ledger(
    pgbouncer: OpenPooler, database_url: str, mode: str
) -> None:
    """In transaction mode the sessions of the server are shared: what another one has set there is still set."""
    url = pgbouncer(mode=mode, size=1).url(database_url)
    odd = "SET DateStyle = German; SET TimeZone = 'Asia/Tokyo'; SET array_nulls = off; SET synchronous_commit = off"
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(f"{odd}; SET default_transaction_isolation = serializable; SET search_path = public")
    with closing(ledger_at(url)) as ledger:
        ledger.migrate()
        with ledger.planning(run_id="1", mode=Mode.LIVE) as planning:
            connection = planning._connection  # noqa: SLF001 -- the transaction in question
            names = ("TimeZone", "array_nulls", "synchronous_commit", "transaction_isolation", "search_path")
            shown = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]
            style = connection.exec_driver_sql("SHOW DateStyle").scalar()
    assert shown == ["UTC", "on", "on", "read committed", ""]
    assert str(style).startswith("ISO")


@MODES
def test_settings_of_another_client_do_not_reach_the_source(
    pgbouncer: OpenPooler, registry: Registry, mode: str, tmp_path: Path
) -> None:
    names = ("TimeZone", "DateStyle", "bytea_output", "statement_timeout", "transaction_read_only")
    shown = " || ' ' || ".join(f"current_setting('{name}')" for name in names)
    (tmp_path / "tokens.sql").write_text(
        f"SELECT id AS token_id, user_id AS recipient_id, created_at, expired_at AS expires_at, {shown} AS token_name,"  # noqa: S608 -- a test's own
        " 'Ada' AS recipient_name, 'ada@example.org' AS email FROM api_tokens"
        " WHERE expired_at >= :expires_after AND expired_at < :expires_before",
        encoding="utf-8",
    )
    token = registry.token(registry.user("ada"), expires_at=NOW + DAY)
    url = pgbouncer(mode=mode, size=1).url(registry.url)
    with psycopg.connect(url, autocommit=True) as other:
        odd = "SET DateStyle = German; SET TimeZone = 'Asia/Tokyo'; SET bytea_output = escape"
        other.execute(f"{odd}; SET statement_timeout = '9s'; SET default_transaction_isolation = serializable")
    written = {"url": url, "query": str(tmp_path / "tokens.sql")}
    source = Source(SourceConfig.model_validate(written))
    [said] = source.resolve([token])["token_name"]
    assert str(said).startswith("UTC ISO, ")
    assert str(said).endswith(" hex 10min on")
    with psycopg.connect(url, autocommit=True) as other:
        assert other.execute("SHOW transaction_read_only").fetchone() == ("off",)


@MODES
def test_settings_of_the_ledger_do_not_reach_another_client(
    pgbouncer: OpenPooler, database_url: str, mode: str
) -> None:
    url = pgbouncer(mode=mode, size=1).url(database_url)
    with closing(ledger_at(url)) as ledger:
        ledger.migrate()
        with ledger.sending(run_id="1", mode=Mode.LIVE, has_ended=lambda _: False) as sender:
            if mode == "transaction":
                sender.settle([], {})
    with psycopg.connect(url, autocommit=True) as other:
        names = ("search_path", "lock_timeout", "plan_cache_mode")
        shown = [other.execute(f"SHOW {name}".encode()).fetchone() for name in names]
    assert shown == [('"$user", public',), ("0",), ("auto",)]


def test_pooler_that_takes_no_start_up_options_is_named(
    pgbouncer: OpenPooler, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = pgbouncer(mode="session").url(database_url)
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=8MB")
    assert refusal(url).endswith(
        "is behind a pooler that refuses start-up options; remove PGOPTIONS and the URL's options, or add options to"
        " ignore_startup_parameters of the pooler."
    )


def test_pooler_that_pools_statements_is_named(pgbouncer: OpenPooler, database_url: str) -> None:
    assert refusal(pgbouncer(mode="statement").url(database_url)).endswith(
        "is behind a pooler that pools single statements; set pool_mode to session or transaction there."
    )


def test_pool_without_a_free_connection_is_named(pgbouncer: OpenPooler, database_url: str) -> None:
    url = pgbouncer(mode="session", size=1, wait=1).url(database_url)
    with psycopg.connect(url) as other:
        other.execute("SELECT 1")
        assert refusal(url).endswith(
            "has no connection left in its pooler; raise default_pool_size there: a run needs about four to the ledger."
        )


def test_pooler_whose_server_is_missing_is_named(pgbouncer: OpenPooler, database_url: str) -> None:
    said = refusal(pgbouncer(mode="session", wait=1).url(database_url).replace("empty_", "nowhere_"))
    assert "cannot be reached" not in said
    assert said.endswith("has no such database; check the name after the last / of the URL, or create the database.")


def refusal(url: str) -> str:
    with closing(ledger_at(url)) as ledger, pytest.raises(LedgerError) as caught:
        ledger.migrate()
    return str(caught.value)
