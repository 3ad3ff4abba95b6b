"""A database that writes its errors in another language is understood as well as one that writes English."""

# ruff: noqa: S608 -- a test's own queries

from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine
from support.databases import Database, OpenDatabase

from token_pipelines.errors import SourceContractError, SourceError, TokenPipelinesError
from token_pipelines.source.bounds import ANY_EXPIRY

INSTANT = "timestamp('2026-11-21 09:00:00')"


@pytest.fixture
def german(open_database: OpenDatabase, tmp_path: Path) -> Database:
    """A MariaDB whose sessions are German."""
    maria = open_database("mariadb")
    maria.execute("CREATE TABLE tokens (id int, x varchar(80))", "INSERT INTO tokens VALUES (1, 'hush')")
    return Database(maria.url.update_query_dict({"init_command": "SET lc_messages = 'de_DE'"}), tmp_path)


def query(where: str) -> str:
    return f"""
        SELECT id AS token_id, 7 AS recipient_id, {INSTANT} AS created_at, {INSTANT} AS expires_at, 'n' AS token_name,
            'Ada' AS recipient_name, 'ada@example.org' AS email
        FROM tokens WHERE {INSTANT} >= :expires_after AND {INSTANT} < :expires_before AND {where}
    """


def refusal(database: Database, kind: type[TokenPipelinesError], where: str, **settings: str) -> str:
    with pytest.raises(TokenPipelinesError) as caught:
        list(database.source(query(where), timezone="UTC", **settings).snapshot(ANY_EXPIRY))
    said = str(caught.value)
    assert type(caught.value) is kind, said
    assert "hush" not in said
    return said


def test_mistake_in_the_query_is_said_in_the_words_of_a_german_mariadb(german: Database) -> None:
    said = refusal(german, SourceContractError, "nam = 1")
    assert said == (
        "The source query is not accepted by the database: Unbekanntes Tabellenfeld 'nam' in WHERE; fix source.query."
    )
    assert "hush" not in refusal(german, SourceContractError, "'hush' hush")


def test_value_that_a_german_mariadb_cannot_calculate_is_no_fault_of_the_statement(german: Database) -> None:
    assert refusal(german, SourceError, "18446744073709551615 + id > 0").startswith(
        "The source query failed on a row's value (error 1690); "
    )


def test_slow_statement_and_lock_of_a_german_mariadb_are_told_apart(german: Database) -> None:
    slow = refusal(german, SourceError, "sleep(100) = 0", statement_timeout="1s")
    assert slow.endswith(" took too long; raise source.statement_timeout, or add the index in docs/sources.")
    engine = create_engine(german.url, poolclass=NullPool)
    with engine.connect() as migration:
        migration.exec_driver_sql("LOCK TABLES tokens WRITE")
        locked = refusal(german, SourceError, "1 = 1", lock_timeout="1s")
    assert locked.endswith(" waited too long for a lock; run again when the migration on it has finished.")


def test_database_that_a_german_mariadb_does_not_have_is_named(german: Database, tmp_path: Path) -> None:
    elsewhere = Database(german.url.set(database="nowhere"), tmp_path)
    assert " has no such database; check the name " in refusal(elsewhere, SourceError, "1 = 1")
