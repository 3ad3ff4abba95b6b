"""The group commit of the sending loop: outcomes, and marks for the messages that go out next, in one statement.

A mark says that a message's text is about to be written to the socket. It is committed before that, so a killed run
leaves in doubt only the messages that were on its sockets.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import psycopg
from sqlalchemy import Engine, QueuePool

from token_pipelines.config import LEDGER_URL
from token_pipelines.database import DatabaseUrl, explain, set_settings
from token_pipelines.errors import LedgerError
from token_pipelines.ledger.connections import POOLED, in_schema, settings
from token_pipelines.model import Outcome

LOCK_TIMEOUT: Final = "30s"
"""If a lock is held for longer, the tier stops: all connections wait for this statement."""

# With few messages a turn, Postgres would plan each call anew, which takes longer than executing it.
_SETTINGS: Final = {"plan_cache_mode": "force_generic_plan", "lock_timeout": LOCK_TIMEOUT}

_ANSWERED: Final = """
unnest(%(ids)s::uuid[], %(states)s::text[], %(ats)s::timestamptz[], %(stages)s::text[], %(codes)s::int[],
    %(enhanced)s::text[], %(replies)s::text[], %(queue_ids)s::text[], %(hashes)s::bytea[])
"""

# If another run presumed this one dead, only a late 250 counts: any other answer says nothing about the copy that the
# other run may have sent.
# A refusal for good is deferred until it is believed: see `Sending.fail`.
# 4xx answers and connections lost before the final dot do not count as attempts: a greylisted notice must not use up
# the attempts that a notice in doubt has. A 5xx before the mark does count: else it would be tried for ever.
_SETTLE: Final = f"""
WITH answered AS (
    SELECT * FROM {_ANSWERED}
        AS answer (notice_id, state, at, stage, code, enhanced, reply, queue_id, address_hash)
), recorded AS (
    UPDATE token_pipelines.notices AS n SET claimed_by = NULL, claimed_from = NULL,
        state = CASE WHEN a.state = 'failed' AND a.code IS NOT NULL THEN 'deferred' ELSE a.state END,
        sent_at = CASE WHEN a.state = 'sent' THEN a.at END,
        attempts = n.attempts + CASE
            WHEN n.state = 'sending'
                AND (a.code BETWEEN 400 AND 499 OR (a.code IS NULL AND a.stage <> 'dot')) THEN -1
            WHEN n.state = 'claimed' AND a.code BETWEEN 500 AND 599 THEN 1
            ELSE 0 END
    FROM answered AS a
    WHERE n.notice_id = a.notice_id AND (n.claimed_by = %(run)s
        OR (a.state = 'sent' AND (n.state = 'unknown' OR n.claimed_from = 'unknown')))
), logged AS (
    INSERT INTO token_pipelines.attempts
        (notice_id, at, run_id, state, stage, code, enhanced, reply, queue_id, address_hash)
    SELECT notice_id, at, %(run)s, state, stage, code, enhanced, reply, queue_id, address_hash FROM answered
), marked AS (
    UPDATE token_pipelines.notices AS n SET state = 'sending', attempts = n.attempts + 1,
        first_tried_at = CASE WHEN n.claimed_from = 'unknown' THEN n.first_tried_at ELSE mark.at END
    FROM unnest(%(marks)s::uuid[], %(written)s::timestamptz[]) AS mark (notice_id, at)
    WHERE n.notice_id = mark.notice_id AND n.state = 'claimed' AND n.claimed_by = %(run)s
    RETURNING n.notice_id
)
SELECT notice_id::text FROM marked
"""  # noqa: S608 -- constants only

_RECORDED_BEFORE: Final = """
SELECT attempts.notice_id::text
FROM unnest(%(ids)s::uuid[], %(ats)s::timestamptz[]) AS answer (notice_id, at)
JOIN token_pipelines.attempts
    ON attempts.notice_id = answer.notice_id AND attempts.at = answer.at AND attempts.run_id = %(run)s
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """The outcome of one attempt, with the keyed hash of the address."""

    notice_id: str
    outcome: Outcome
    at: datetime
    address_hash: bytes


class Settlement:
    """One run's group commits, on their own connection, which is opened when needed. For one thread."""

    def __init__(self, engine: Engine, run_id: str) -> None:
        """Settle for the run ``run_id``."""
        self._engine = engine
        self._run_id = run_id
        self._connection: psycopg.Connection[Any] | None = None
        self._is_pooled = False

    def settle(self, records: Sequence[Record], marks: Mapping[str, datetime]) -> set[str]:
        """Record these outcomes and mark these notices as being sent, in one commit that waits for the disk.

        Args:
            records: the outcomes.
            marks: notice id to the instant as of which the email was written. A resend is written as of the same one.

        Returns:
            Ids of the notices that were marked. If one is missing, another run has taken it over: do not send it.

        Raises:
            LedgerError: the ledger cannot be reached, or the statement failed. It may have been committed or not.
            ValueError: a notice is in both lists; the statement would change its row twice.
        """
        if not marks.keys().isdisjoint(record.notice_id for record in records):
            msg = "a notice cannot be recorded and marked in one statement"
            raise ValueError(msg)
        return self._execute(_SETTLE, _values(self._run_id, records, marks))

    def settle_again(self, records: Sequence[Record]) -> None:
        """Record outcomes on a new connection, after a `settle` that failed. Skips those that it did record.

        Raises:
            LedgerError: the ledger still cannot be reached, or the statement failed.
        """
        self.close()
        self._close_idle()
        values = {
            "run": self._run_id,
            "ids": _plain(record.notice_id for record in records),
            "ats": _quoted(record.at.isoformat() for record in records),
        }
        before = self._execute(_RECORDED_BEFORE, values)
        self.settle([record for record in records if record.notice_id not in before], {})

    def close(self) -> None:
        """Close the connection. A later `settle` opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _close_idle(self) -> None:
        """Close what the pool holds: those connections may be lost too, or be about to.

        Not `Engine.dispose`: it would leave open what other threads use just now.
        """
        pool = self._engine.pool
        assert isinstance(pool, QueuePool)  # noqa: S101 -- narrows the type
        with self._explained():
            for _ in range(pool.checkedin()):
                self._engine.raw_connection().invalidate()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except psycopg.IntegrityError:  # a fault of ours
            raise
        except psycopg.Error as error:
            raise LedgerError(explain(error, DatabaseUrl(self._engine.url, LEDGER_URL))) from None

    def _execute(self, statement: str, values: Mapping[str, object]) -> set[str]:
        """On psycopg itself: SQLAlchemy's share of so small a statement would be larger than all the rest of it."""
        with self._explained():
            self._connection = self._connection or self._opened()
            query = in_schema(self._engine, statement).encode()
            if not self._is_pooled:
                return {row[0] for row in self._connection.execute(query, values, prepare=True)}
            with self._connection.transaction():
                self._connection.execute(f"{settings(local=True)}; {set_settings(_SETTINGS, local=True)}".encode())
                return {row[0] for row in self._connection.execute(query, values)}

    def _opened(self) -> "psycopg.Connection[Any]":
        connection = self._engine.raw_connection()  # unlike Engine.connect, it raises the driver's own errors
        driver = connection.driver_connection
        assert isinstance(driver, psycopg.Connection)  # noqa: S101 -- narrows the type
        self._is_pooled = bool(connection.info.get(POOLED))
        connection.detach()  # its settings must not reach another user of the pool
        driver.autocommit = True
        if not self._is_pooled:
            driver.execute(set_settings(_SETTINGS, local=False).encode())
        return driver


def _values(run_id: str, records: Sequence[Record], marks: Mapping[str, datetime]) -> dict[str, object]:
    outcomes = [record.outcome for record in records]
    return {
        "run": run_id,
        "ids": _plain(record.notice_id for record in records),
        "states": _plain(outcome.state for outcome in outcomes),
        "ats": _quoted(record.at.isoformat() for record in records),
        "stages": _plain(outcome.stage for outcome in outcomes),
        "codes": _plain(outcome.code for outcome in outcomes),
        "enhanced": _plain(outcome.enhanced for outcome in outcomes),
        "replies": _quoted(outcome.reply for outcome in outcomes),
        "queue_ids": _quoted(outcome.queue_id for outcome in outcomes),
        "hashes": _quoted("\\x" + record.address_hash.hex() for record in records),
        "marks": _plain(marks),
        "written": _quoted(at.isoformat() for at in marks.values()),
    }


def _plain(values: Iterable[object]) -> str:
    """An array literal of ids, numbers and names. psycopg's adaptation of a list takes 40 µs a message, this 16."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def _quoted(values: Iterable[str | None]) -> str:
    """An array literal of any text."""
    return (
        "{"
        + ",".join(
            ["NULL" if one is None else '"' + one.replace("\\", "\\\\").replace('"', '\\"') + '"' for one in values]
        )
        + "}"
    )
