"""The ledger's tables: how they are made, and what they refuse."""

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from support.ledger import due, ledger_at, many, plan, query, states, told

from token_pipelines.errors import ConfigError, LedgerError
from token_pipelines.ledger.ledger import Ledger
from token_pipelines.ledger.tables import SCHEMA, metadata
from token_pipelines.model import Mode

# The schema


def test_migrations_make_what_the_tables_say(ledger: Ledger) -> None:
    with ledger.engine.connect() as connection:
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_schemas": True,
            "include_name": lambda name, kind, _: kind != "schema" or name == SCHEMA,
            "version_table_schema": SCHEMA,
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_migrations_make_every_constraint_of_the_tables(ledger: Ledger) -> None:
    """What autogenerate does not compare: checks, foreign keys' actions, identities, the index's condition."""
    made = _constraints(ledger)
    query(ledger, "DROP SCHEMA token_pipelines CASCADE")
    query(ledger, "CREATE SCHEMA token_pipelines")
    metadata.create_all(ledger.engine)
    assert made == _constraints(ledger)
    assert len(made) > 20


def _constraints(ledger: Ledger) -> list[str]:
    constraints = query(
        ledger,
        "SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'token_pipelines'::regnamespace AND conrelid::regclass::text NOT LIKE '%alembic%'",
    )
    indexes = query(
        ledger,
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'token_pipelines' AND tablename <> 'alembic_version'",
    )
    columns = query(
        ledger,
        "SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' '"
        " || coalesce(column_default, '') || ' ' || is_identity FROM information_schema.columns"
        " WHERE table_schema = 'token_pipelines' AND table_name <> 'alembic_version'",
    )
    return sorted(str(row[0]) for row in [*constraints, *indexes, *columns])


def test_migrate_again_changes_nothing(ledger: Ledger) -> None:
    made = _constraints(ledger)
    plan(ledger, due(("1", "7", "day")))
    ledger.migrate()
    assert _constraints(ledger) == made
    assert len(states(ledger)) == 1


def test_two_processes_migrate_at_once(database_url: str) -> None:
    ledgers = [ledger_at(database_url) for _ in range(4)]
    start = threading.Barrier(len(ledgers))

    def migrate(ledger: Ledger) -> None:
        start.wait()
        ledger.migrate()

    with ThreadPoolExecutor() as pool:
        list(pool.map(migrate, ledgers))
    assert query(ledgers[0], "SELECT count(*) FROM token_pipelines.alembic_version") == [(1,)]
    for ledger in ledgers:
        ledger.close()


def test_schema_of_a_newer_version_is_refused_and_left_alone(ledger: Ledger) -> None:
    query(ledger, "UPDATE token_pipelines.alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerError, match="revision 9999, newer than this version knows; upgrade token-pipelines"):
        ledger.migrate()
    assert query(ledger, "SELECT version_num FROM token_pipelines.alembic_version") == [("9999",)]


def test_told_of_a_ledger_without_tables_is_nothing(database_url: str) -> None:
    """A first dry run reads the ledger before anything has made it."""
    ledger = ledger_at(database_url)
    assert told(ledger) == []
    assert ledger.told.before(Mode.LIVE) is None
    assert query(ledger, "SELECT to_regnamespace('token_pipelines') IS NULL") == [(True,)]
    ledger.close()


def test_ledger_is_postgres_only() -> None:
    with pytest.raises(ConfigError, match=r"ledger.url must be a Postgres database \(postgresql://…\), not sqlite."):
        ledger_at("sqlite:///x.db")


# What the database refuses from every client


@pytest.mark.parametrize(
    "change",
    [
        "state = 'lost'",
        "mode = 'dry_run'",
        "state = 'claimed'",
        "state = 'sending'",
        "claimed_by = 'run-1', claimed_from = 'planned'",
        "state = 'claimed', claimed_by = 'run-1'",
        "state = 'sent'",
        "sent_at = now()",
        "state = 'skipped'",
        "recipient_id = NULL",
    ],
)
def test_impossible_state_is_refused(ledger: Ledger, change: str) -> None:
    many(ledger, 1)
    with (
        psycopg.connect(
            ledger.url.parsed.set(drivername="postgresql").render_as_string(hide_password=False)
        ) as connection,
        pytest.raises(psycopg.IntegrityError),
    ):
        connection.execute(b"UPDATE token_pipelines.notices SET " + change.encode())


def test_second_promise_is_refused_by_the_key(ledger: Ledger) -> None:
    first, second = many(ledger, 2)
    copy_line = (
        "INSERT INTO token_pipelines.notice_tokens"
        " (notice_id, token_id, recipient_id, expires_at, threshold, mode, tier)"
        " SELECT CAST(:to AS uuid), token_id, recipient_id, expires_at, threshold, mode, tier"
        " FROM token_pipelines.notice_tokens WHERE notice_id = CAST(:of AS uuid)"
    )
    with ledger.engine.begin() as connection, pytest.raises(Exception, match="notice_tokens_told_once"):
        connection.execute(text(copy_line), {"of": first, "to": second})
    query(ledger, "UPDATE token_pipelines.notice_tokens SET released = true")
    query(ledger, copy_line, of=first, to=second)
