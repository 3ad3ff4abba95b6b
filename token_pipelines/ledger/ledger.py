"""The front of the ledger: one schema of a Postgres database, the parts that work in it, and the locks between them."""

import logging
import weakref
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, Self

import psycopg
from sqlalchemy import URL, Engine, create_engine, event, text
from sqlalchemy.engine.interfaces import ExceptionContext

from token_pipelines.config import Config
from token_pipelines.database import PSYCOPG, describe_url, explain, parse_postgres
from token_pipelines.errors import LedgerError
from token_pipelines.ledger import schema
from token_pipelines.ledger.address_hashes import AddressHasher
from token_pipelines.ledger.bounces import Bounces
from token_pipelines.ledger.driver import KEY
from token_pipelines.ledger.fuse import Fuse
from token_pipelines.ledger.heartbeat import LEASE, expired_leases, heartbeat
from token_pipelines.ledger.history import History
from token_pipelines.ledger.locks import PLANNING_LOCK, lock_key
from token_pipelines.ledger.on_sent import OnSentLog
from token_pipelines.ledger.planning import Planning
from token_pipelines.ledger.sending import Sending
from token_pipelines.ledger.suppressions import Suppressions
from token_pipelines.ledger.tables import schema_of
from token_pipelines.ledger.told import Told
from token_pipelines.model import Mode

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 10
APPLICATION_NAME: Final = "token-pipelines ledger"


class Ledger:
    """What was planned, sent, skipped and refused. Opens connections when they are needed, not before.

    Its parts do the work: ``told``, ``fuse``, ``suppressions``, ``bounces``, ``history`` and ``on_sent`` in short
    transactions of their own, `planning` and `sending` for as long as a block lasts.
    """

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
        # A ledger that nobody closes leaves no connection open. The engine must hold no reference to it.
        weakref.finalize(self, self._engine.dispose)
        self.told = Told(self._engine.begin)
        self.fuse = Fuse(self._engine.begin)
        self.suppressions = Suppressions(self._engine)
        self.bounces = Bounces(self._engine)
        self.history = History(self._engine)
        self.on_sent = OnSentLog(self._engine)
        self.hash_address = AddressHasher(self._engine)

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
        """One planning transaction: nobody else plans or claims while it lasts. It commits when the block ends well.

        Touch nothing but the ledger inside the block: every sender waits for its end.
        """
        with self._engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": self._planning_lock})
            yield Planning(connection, run_id=run_id, mode=mode)

    @contextmanager
    def heartbeat(self, run_id: str) -> Iterator[None]:
        """Say every few seconds that a run is alive, while the block lasts."""
        with heartbeat(self._engine, run_id):
            yield

    def expired_leases(self, run_ids: Collection[str]) -> set[str]:
        """Which of these runs sent a heartbeat once and none for longer than the lease: they were killed."""
        return expired_leases(self._engine, run_ids)

    @contextmanager
    def sending(self, *, run_id: str, mode: Mode, has_ended: Callable[[str], bool]) -> Iterator[Sending]:
        """Let a run send; give back what it has claimed and not sent when the block ends.

        Args:
            run_id: who claims.
            mode: whose notices.
            has_ended: whether the orchestrator knows that another run has ended.
        """
        with self.heartbeat(run_id):
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

    @property
    def _planning_lock(self) -> int:
        return lock_key(PLANNING_LOCK, self.schema)


def _translate(url: URL, context: ExceptionContext) -> None:
    error = context.original_exception
    if isinstance(error, psycopg.errors.UndefinedTable):
        msg = (
            f"The database of {KEY} ({describe_url(url)}) lacks the ledger's tables; run "
            "`token-pipelines run` once: it makes them."
        )
        raise LedgerError(msg) from None
    if isinstance(error, psycopg.Error) and not isinstance(error, psycopg.IntegrityError):
        raise LedgerError(explain(error, url, KEY)) from None
