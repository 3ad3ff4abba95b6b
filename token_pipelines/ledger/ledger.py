"""The entry point of the ledger: one schema of a Postgres database, the parts that work in it, and their locks."""

import logging
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Self

from sqlalchemy import Engine, text

from token_pipelines.config import LEDGER_URL, Config
from token_pipelines.database import PSYCOPG, DatabaseUrl
from token_pipelines.errors import LedgerError
from token_pipelines.ledger import schema
from token_pipelines.ledger.address_hashes import AddressHasher
from token_pipelines.ledger.bounces import Bounces
from token_pipelines.ledger.connections import make_engine
from token_pipelines.ledger.doubt import Doubt
from token_pipelines.ledger.fuse import Fuse
from token_pipelines.ledger.growth import Growth
from token_pipelines.ledger.heartbeat import LEASE, expired_leases, heartbeat, killed_runs
from token_pipelines.ledger.history import History
from token_pipelines.ledger.locks import BOUNCES_LOCK, PLANNING_LOCK, lock_key
from token_pipelines.ledger.on_sent import OnSentLog
from token_pipelines.ledger.ownership import Ownership
from token_pipelines.ledger.read_messages import ReadMessages
from token_pipelines.ledger.sending import Sending
from token_pipelines.ledger.suppressions import Suppressions
from token_pipelines.ledger.tables import schema_of
from token_pipelines.model import Mode

if TYPE_CHECKING:
    from token_pipelines.ledger.planning import Planning
    from token_pipelines.ledger.told import Told

log = logging.getLogger(__name__)


class Ledger:
    """What was planned, sent, skipped and refused. Opens connections when they are needed, not before.

    The parts do the work: ``told``, ``fuse``, ``growth``, ``suppressions``, ``bounces``, ``read_messages``,
    ``history``, ``doubt``, ``ownership`` and ``on_sent`` in short transactions of their own, `planning` and `sending`
    for as long as a block lasts.
    """

    def __init__(
        self,
        url: DatabaseUrl,
        *,
        pipeline: str | None = None,
        connections: int = 4,
        address_keys: Sequence[bytes] = (),
    ) -> None:
        """Take a pipeline's schema in the database at ``url``.

        Args:
            url: the database, a Postgres with the driver psycopg. The ledgers of several pipelines may share it.
            pipeline: the pipeline's name; None for a single pipeline, which has none.
            connections: how many connections to expect at a time.
            address_keys: the keys of address hashes that the environment gives, the present one first.
        """
        self.url = url
        self.schema = schema_of(pipeline)
        self._engine = make_engine(url, self.schema, connections + 2)
        # Closes the connections of a ledger that nobody closed. The engine must hold no reference to the ledger.
        weakref.finalize(self, self._engine.dispose)
        self.fuse = Fuse(self._engine.begin)
        self.growth = Growth(self._engine.begin)
        self.suppressions = Suppressions(self._engine)
        self.bounces = Bounces(self._engine)
        self.read_messages = ReadMessages(self._engine, lock=lock_key(BOUNCES_LOCK, self.schema))
        self.history = History(self._engine)
        self.doubt = Doubt(self._engine, lock=self._planning_lock)
        self.on_sent = OnSentLog(self._engine)
        self.ownership = Ownership(self._engine, self.schema)
        self.hash_address = AddressHasher(self._engine, address_keys)

    @classmethod
    def of(cls, config: Config) -> Self:
        """The ledger of the pipeline that ``config`` describes.

        Raises:
            ConfigError: if the URL is not one of a Postgres database.
        """
        url = DatabaseUrl.read_postgres(config.ledger.url.get_secret_value(), LEDGER_URL, PSYCOPG)
        keys = config.ledger.address_keys
        return cls(url, pipeline=config.name, connections=config.smtp.connections, address_keys=keys)

    @property
    def engine(self) -> Engine:
        """The engine, for tests and other readers of the ledger."""
        return self._engine

    @cached_property
    def told(self) -> "Told":
        """What was told and refused."""
        from token_pipelines.ledger.told import Told  # noqa: PLC0415 -- pandas takes time, and most commands need none

        return Told(self._engine.begin)

    def migrate(self) -> None:
        """Bring the schema up to date."""
        schema.bring_up_to_date(self._engine, self.schema)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def planning(self, *, run_id: str, mode: Mode) -> "Iterator[Planning]":
        """One planning transaction: nobody else plans or claims meanwhile. It commits if the block raises nothing.

        Inside the block, do nothing but work on the ledger: every sender waits for its end.
        """
        from token_pipelines.ledger.planning import Planning  # noqa: PLC0415 -- as above

        with self._engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": self._planning_lock})
            yield Planning(connection, run_id=run_id, mode=mode)

    @contextmanager
    def heartbeat(self, run_id: str) -> Iterator[None]:
        """Send a run's heartbeats, every few seconds, while the block lasts."""
        with heartbeat(self._engine, run_id):
            yield

    def expired_leases(self, run_ids: Collection[str]) -> set[str]:
        """The runs among these whose last heartbeat is older than the lease: they were killed."""
        return expired_leases(self._engine, run_ids)

    def killed_runs(self, run_ids: Collection[str]) -> set[str]:
        """The runs among these that were killed: they sent heartbeats and never said that they ended."""
        return killed_runs(self._engine, run_ids)

    @contextmanager
    def sending(self, *, run_id: str, mode: Mode, has_ended: Callable[[str], bool]) -> Iterator[Sending]:
        """Let a run send. When the block ends, release the notices that it claimed and did not send.

        Args:
            run_id: the run that claims.
            mode: the mode of the notices.
            has_ended: says, for the id of another run, whether Dagster knows that it has ended.
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
