"""Marks when the database goes away under them: the operator is told of the database, never of a fault of ours."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, create_engine, make_url

from token_pipelines.errors import LedgerError
from token_pipelines.ledger.statements import Marks, Statement

ONE = Statement.named("one", "SELECT CAST(:number AS int)")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on an empty database, as the ledger's, but that it translates no errors."""
    opened = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    yield opened
    opened.dispose()


def test_count_without_a_server_says_that_the_database_cannot_be_reached(tmp_path: Path) -> None:
    """As after a crash of Postgres, when a sender's next mark needs a new connection."""
    marks = Marks(create_engine(f"postgresql+psycopg://owner@/ledger?host={tmp_path}"), durable=False)
    with pytest.raises(LedgerError) as raised:
        marks.count(ONE, {"number": 1})
    assert str(raised.value) == (
        f"The database of ledger.url (owner@{tmp_path}/ledger) cannot be reached; check that it runs and that this "
        "machine may connect."
    )


def test_count_on_a_lost_connection_fails_once_and_takes_a_new_one(engine: Engine, database_url: str) -> None:
    marks = Marks(engine, durable=False)
    assert marks.count(ONE, {"number": 1}) == 1
    with psycopg.connect(database_url) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with pytest.raises(LedgerError, match=r"was lost while we spoke to it; run again; nothing is sent twice\.$"):
        marks.count(ONE, {"number": 2})
    assert marks.count(ONE, {"number": 3}) == 3
    marks.close()
