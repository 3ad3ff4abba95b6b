"""The ledger's front door: one Postgres database, its schema, and who may do what in it at a time."""

import hmac
import logging
import secrets as random_bytes
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from functools import cached_property, partial
from typing import Final, Self

import pandas as pd
import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, func, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.engine.interfaces import ExceptionContext

from token_pipelines.addresses import canonical
from token_pipelines.config import Config
from token_pipelines.database import PSYCOPG, explain, parse_postgres, place
from token_pipelines.errors import LedgerError
from token_pipelines.ledger import schema
from token_pipelines.ledger.bounces import Bounces
from token_pipelines.ledger.driver import KEY
from token_pipelines.ledger.heartbeat import LEASE, expired_leases, heartbeat
from token_pipelines.ledger.history import read_history
from token_pipelines.ledger.locks import PLANNING_LOCK, lock_key
from token_pipelines.ledger.on_sent import OnSentLog
from token_pipelines.ledger.planning import Planning
from token_pipelines.ledger.sending import Sending
from token_pipelines.ledger.suppressions import Suppressions
from token_pipelines.ledger.tables import fuse_trips, marks, schema_of, secrets, suppressions
from token_pipelines.model import TOLD, Mode
from token_pipelines.policy import Window

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 10
APPLICATION_NAME: Final = "token-pipelines ledger"

ADDRESS_KEY: Final = "address_key"
ADDRESS_KEY_BYTES: Final = 32


_SUPERSEDED_LINES: Final = text(f"""
SELECT mine.notice_id, mine.token_id
FROM notice_tokens AS mine
JOIN notice_tokens AS other USING (token_id, recipient_id, expires_at, mode)
JOIN notices AS notice ON notice.notice_id = other.notice_id
WHERE mine.notice_id = ANY(:ids) AND NOT mine.released AND NOT other.released
    AND other.threshold > mine.threshold AND notice.state IN ({", ".join(f"'{state}'" for state in TOLD)})
""")  # noqa: S608 -- constants only


class Ledger:
    """What was planned, sent, skipped and refused. Opens connections when they are needed, not before."""

    def __init__(self, url: str, *, pipeline: str | None = None, connections: int = 4) -> None:
        """Take a pipeline's schema in the database at ``url``.

        Args:
            url: the database, which the ledgers of several pipelines may share.
            pipeline: whose ledger it is; None for a single one, which has no name.
            connections: how many senders will work at a time.
        """
        self.url = parse_postgres(url, KEY, PSYCOPG)
        self.schema = schema_of(pipeline)
        self._engine = create_engine(
            self.url,
            hide_parameters=True,
            pool_size=connections + 2,
            connect_args={
                # Nothing but this schema can be reached by a table's bare name, and our statements use no other.
                "options": f"-c timezone=UTC -c search_path={self.schema}",
                "connect_timeout": CONNECT_TIMEOUT_S,
                "application_name": APPLICATION_NAME,
            },
        )
        event.listen(self._engine, "handle_error", partial(_translate, self.url))
        # Who forgets to close us leaves no connection open. The engine must not know us, or this would keep us alive.
        weakref.finalize(self, self._engine.dispose)
        self.bounces = Bounces(self._engine)
        self.suppressions = Suppressions(self._engine)
        self.written_back = OnSentLog(self._engine)

    @classmethod
    def of(cls, config: Config) -> Self:
        """The ledger of the pipeline that ``config`` describes."""
        url = config.ledger.url.get_secret_value()
        return cls(url, pipeline=config.name, connections=config.smtp.connections)

    @property
    def engine(self) -> Engine:
        """The engine, for tests and for what reads beside us."""
        return self._engine

    def migrate(self) -> None:
        """Bring the schema up to date."""
        schema.bring_up_to_date(self._engine, self.schema)

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()

    @contextmanager
    def planning(self, *, run_id: str, mode: Mode) -> Iterator[Planning]:
        """One planning transaction, alone: nobody plans or claims while it lasts. Commits when the block ends well."""
        with self._engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": self._planning_lock})
            yield Planning(connection, run_id=run_id, mode=mode)

    @contextmanager
    def alive(self, run_id: str) -> Iterator[None]:
        """Say that a run lives while the block lasts."""
        with heartbeat(self._engine, run_id):
            yield

    def expired_leases(self, run_ids: Collection[str]) -> set[str]:
        """Which of these runs enlisted here and then fell silent: they were killed."""
        return expired_leases(self._engine, run_ids)

    @contextmanager
    def sending(self, *, run_id: str, mode: Mode, has_ended: Callable[[str], bool]) -> Iterator[Sending]:
        """Enlist a run as a sender; give back what it has claimed and not sent when the block ends.

        Args:
            run_id: who claims.
            mode: whose notices.
            has_ended: whether the orchestrator knows that another run has ended.
        """
        with self.alive(run_id):
            sending = Sending(self._engine, run_id=run_id, mode=mode, claim_lock=self._planning_lock)
            sending.reclaim_from_the_dead(has_ended)
            try:
                yield sending
            finally:
                sending.close()
                try:
                    sending.give_back()
                except LedgerError as error:
                    log.warning("What this run had claimed is free in %s. %s", LEASE, error)

    def told(self, window: Window, mode: Mode) -> pd.DataFrame:
        """What was told and refused, for expiries in the window: columns policy.HISTORY_COLUMNS. Takes no lock."""
        with self._engine.connect() as connection:
            return Planning(connection, run_id="", mode=mode).told(window)

    def superseded_lines(self, notice_ids: Collection[str]) -> set[tuple[str, str]]:
        """Lines of these notices, as (notice_id, token_id), of which a later threshold has been told by another."""
        with self._engine.connect() as connection:
            return {(str(row[0]), row[1]) for row in connection.execute(_SUPERSEDED_LINES, {"ids": list(notice_ids)})}

    def told_before(self, mode: Mode) -> datetime | None:
        """The instant before which every threshold counts as told, as `mark_notified` was told. Takes no lock."""
        with self._engine.connect() as connection:
            return Planning(connection, run_id="", mode=mode).told_before()

    def mark_notified(self, before: datetime, *, mode: Mode, at: datetime) -> None:
        """Count every threshold before this instant as told: by an older job, or by what a restored ledger forgot."""
        with self._engine.begin() as connection:
            connection.execute(marks.insert().values(mode=mode.in_ledger, before=before, at=at))

    def has_open_trip(self, mode: Mode) -> bool:
        """Whether the volume fuse waits for a person's approval."""
        with self._engine.connect() as connection:
            return Planning(connection, run_id="", mode=mode).open_trip() is not None

    def record_fuse_trip(self, *, day: date, mode: Mode, run_id: str, new: int, limit: int, at: datetime) -> None:
        """Keep a trip of the volume fuse, so that it holds later days too until it is approved."""
        values = {"at": at, "day": day, "mode": mode, "run_id": run_id, "new_notices": new, "max_notices": limit}
        with self._engine.begin() as connection:
            connection.execute(fuse_trips.insert().values(values))

    def history(
        self, *, day: date | None = None, token_id: str | None = None, recipient_id: str | None = None
    ) -> Iterator[dict[str, object]]:
        """Every notice that fits, oldest first, as the objects of ``history --json``."""
        with self._engine.connect() as connection:
            yield from read_history(connection, day=day, token_id=token_id, recipient_id=recipient_id)

    def suppress(self, address_hash: bytes, *, at: datetime, cause: str) -> None:
        """Write to this address no more."""
        row = {"address_hash": address_hash, "at": at, "cause": cause}
        with self._engine.begin() as connection:
            connection.execute(insert(suppressions).values(row).on_conflict_do_nothing())

    def suppressed(self, hashes: list[bytes]) -> set[bytes]:
        """Which of these addresses not to write to."""
        with self._engine.connect() as connection:
            query = select(suppressions.c.address_hash).where(suppressions.c.address_hash == func.any(hashes))
            return {bytes(found) for found in connection.scalars(query)}

    def hash_address(self, address: str) -> bytes:
        """The keyed hash under which an address is kept, however it is spelt. The key never leaves the ledger."""
        # A delivery report may name anything as an address, half characters too.
        return hmac.digest(self._address_key, canonical(address).encode(errors="replace"), "sha256")

    @property
    def _planning_lock(self) -> int:
        return lock_key(PLANNING_LOCK, self.schema)

    @cached_property
    def _address_key(self) -> bytes:
        with self._engine.begin() as connection:
            fresh = {"name": ADDRESS_KEY, "value": random_bytes.token_bytes(ADDRESS_KEY_BYTES)}
            connection.execute(insert(secrets).values(fresh).on_conflict_do_nothing())
            return bytes(_secret(connection, ADDRESS_KEY))


def _translate(url: URL, context: ExceptionContext) -> None:
    error = context.original_exception
    if isinstance(error, psycopg.errors.UndefinedTable):
        msg = (
            f"The database of {KEY} ({place(url)}) lacks the ledger's tables; run `token-pipelines run` once: it makes "
            "them."
        )
        raise LedgerError(msg) from None
    if isinstance(error, psycopg.Error) and not isinstance(error, psycopg.IntegrityError):
        raise LedgerError(explain(error, url, KEY)) from None


def _secret(connection: Connection, name: str) -> bytes:
    value: bytes = connection.execute(select(secrets.c.value).where(secrets.c.name == name)).scalar_one()
    return value
