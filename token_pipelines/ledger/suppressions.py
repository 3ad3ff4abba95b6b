"""The suppression list: keyed hashes of addresses, with the time and the cause. Never an address itself."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from token_pipelines.ledger.tables import suppressions


@dataclass(frozen=True, kw_only=True, slots=True)
class Suppression:
    """One suppressed address."""

    address_hash: bytes
    at: datetime
    cause: str


class Suppressions:
    """The suppression list of one ledger."""

    def __init__(self, engine: Engine) -> None:
        """Work on the ledger that ``engine`` reaches."""
        self._engine = engine

    def add(self, hashes: Collection[bytes], *, at: datetime, cause: str) -> int:
        """Suppress these addresses. Returns how many are new on the list; the others keep their cause."""
        rows = [{"address_hash": address_hash, "at": at, "cause": cause} for address_hash in dict.fromkeys(hashes)]
        if not rows:
            return 0
        added = insert(suppressions).on_conflict_do_nothing().returning(suppressions.c.at)
        with self._engine.begin() as connection:
            return len(connection.execute(added, rows).all())

    def remove(self, hashes: Collection[bytes]) -> int:
        """Take these addresses off the list. Returns how many were on it."""
        listed = suppressions.c.address_hash == func.any(list(hashes))
        with self._engine.begin() as connection:
            return len(connection.execute(delete(suppressions).where(listed).returning(suppressions.c.at)).all())

    def among(self, hashes: Collection[bytes]) -> set[bytes]:
        """The addresses among these that are on the list."""
        query = select(suppressions.c.address_hash).where(suppressions.c.address_hash == func.any(list(hashes)))
        with self._engine.begin() as connection:
            return {bytes(found) for found in connection.scalars(query)}

    def listed(self, hashes: Collection[bytes] | None = None) -> Iterator[Suppression]:
        """The list, oldest first; with ``hashes``, only these."""
        query = select(suppressions).order_by(suppressions.c.at, suppressions.c.address_hash)
        if hashes is not None:
            query = query.where(suppressions.c.address_hash == func.any(list(hashes)))
        with self._engine.connect() as connection:
            for row in connection.execution_options(yield_per=1000).execute(query):
                yield Suppression(address_hash=bytes(row.address_hash), at=row.at, cause=row.cause)
