"""Which messages a reading of the bounce mailbox has seen, and that there is one reading at a time.

Digests only. The memory is limited in age and size, so a message may be read again much later. What it reported is kept
with its notice, so that changes nothing.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import DateTime, Engine, LargeBinary, cast, delete, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY, insert

from token_pipelines.errors import LedgerError
from token_pipelines.ledger.tables import read_messages

KEPT_FOR: Final = timedelta(days=90)
KEPT_AT_MOST: Final = 500_000
"""Messages; the table then takes some 60 MB."""


class ReadMessages:
    """The memory of one ledger."""

    def __init__(self, engine: Engine, *, lock: int) -> None:
        """Work on the ledger that ``engine`` reaches; ``lock`` is the key of its advisory lock for a reading."""
        self._engine = engine
        self._lock = lock

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no second reading begin while the block lasts.

        Raises:
            LedgerError: another reading is in progress.
        """
        # In a transaction, which also holds behind a pooler. It reads nothing, so it keeps no old rows alive.
        with self._engine.begin() as connection:
            if not connection.scalar(select(func.pg_try_advisory_xact_lock(self._lock))):
                msg = (
                    "Another `token-pipelines bounces` is still reading, so this one read nothing; run it again later."
                )
                raise LedgerError(msg)
            yield

    def digests(self) -> set[bytes]:
        """The messages that were seen."""
        with self._engine.connect() as connection:
            query = select(read_messages.c.digest).execution_options(yield_per=10_000)
            return {bytes(digest) for digest in connection.scalars(query)}

    def remember(self, digests: Collection[bytes], *, at: datetime) -> None:
        """These messages need not be read again."""
        if not digests:
            return
        rows = select(func.unnest(cast(list(digests), ARRAY(LargeBinary))), literal(at, DateTime(timezone=True)))
        fresh = insert(read_messages).from_select(["digest", "at"], rows).on_conflict_do_nothing()
        with self._engine.begin() as connection:
            connection.execute(fresh)

    def forget(self, *, at: datetime) -> None:
        """Keep the memory within its limits."""
        newest = select(read_messages.c.digest).order_by(read_messages.c.at.desc()).offset(KEPT_AT_MOST)
        with self._engine.begin() as connection:
            connection.execute(delete(read_messages).where(read_messages.c.at < at - KEPT_FOR))
            if connection.execute(newest.limit(1)).first() is not None:
                connection.execute(delete(read_messages).where(read_messages.c.digest.in_(newest)))
