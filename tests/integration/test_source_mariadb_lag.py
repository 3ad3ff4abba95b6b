"""source.max_lag on a real MariaDB that was told of its primary: what its status says, and what is made of it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection
from support.databases import Database, OpenDatabase

from token_pipelines.errors import SourceError
from token_pipelines.policy import Window
from token_pipelines.source.databases import mysql
from token_pipelines.source.source import Source

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
WINDOW = Window(expires_after=NOW, expires_before=NOW + timedelta(days=30))

QUERY = """
SELECT id AS token_id, 7 AS recipient_id, ends AS created_at, ends AS expires_at, 'n' AS token_name,
    'Ada' AS recipient_name, 'ada@example.org' AS email
FROM tokens WHERE ends >= :expires_after AND ends < :expires_before
"""


@pytest.fixture
def source(open_database: OpenDatabase) -> Iterator[Source]:
    """One that may be a minute behind; its database replicates nothing, since there is nobody at the other end."""
    maria: Database = open_database("mariadb")
    maria.execute("CREATE TABLE tokens (id int, ends datetime)", "INSERT INTO tokens VALUES (1, '2026-11-21 09:00:00')")
    maria.execute("CHANGE MASTER TO master_host = '127.0.0.1', master_port = 1, master_user = 'nobody'")
    yield maria.source(QUERY, timezone="UTC", max_lag="1m")
    maria.execute("RESET SLAVE ALL")


def test_replica_that_does_not_say_its_lag_is_refused(source: Source) -> None:
    assert source.reader.lag() == timedelta.max
    with pytest.raises(SourceError, match=r" does not say how far it is behind, and source.max_lag is 60s; "):
        list(source.snapshot(WINDOW))


@pytest.mark.parametrize("name", ["Seconds_Behind_Master", "Seconds_Behind_Source"])
@pytest.mark.parametrize("behind", [0, 60, 61])
def test_replica_that_says_its_lag(source: Source, monkeypatch: pytest.MonkeyPatch, name: str, behind: int) -> None:
    """Its status with a number put in: for a true one there would have to be a second server, of MySQL's also."""
    asked = mysql.replica_status

    def status(connection: Connection) -> dict[str, Any]:
        said = dict(asked(connection) or {})
        assert said.pop("Seconds_Behind_Master") is None
        return said | {name: behind}

    monkeypatch.setattr(mysql, "replica_status", status)
    assert source.reader.lag() == timedelta(seconds=behind)
    if behind <= 60:
        assert [len(frame) for frame in source.snapshot(WINDOW)] == [1]
    else:
        with pytest.raises(SourceError, match=r" is 61s behind, and source.max_lag is 60s; wait until it has caught"):
            list(source.snapshot(WINDOW))
