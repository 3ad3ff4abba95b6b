"""The suppression list: keyed hashes of addresses, with the time and the cause. Never an address itself."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Engine, delete, func, select
from sqlalchemy.dialects.postgresql import insert

from token_pipelines.ledger.tables import suppressions

COMPLAINT: Final = "complaint"
"""The cause when the recipient has told their mail provider that they do not want our emails."""

_REPORTED: Final = "a delivery report said so"
_REFUSED: Final = "the relay refused it"
_WITH_STATUS: Final = re.compile(rf"(?:{_REPORTED}|{_REFUSED}): (\d\.\d+\.\d+)", re.ASCII)


def suppress(connection: Connection, row: Mapping[str, object]) -> bool:
    """Add a row in this transaction. Whether it is new: an address on the list keeps its cause."""
    added = insert(suppressions).values(row).on_conflict_do_nothing().returning(suppressions.c.at)
    return connection.execute(added).first() is not None


def reported(status: str) -> str:
    """The cause when a delivery report has said that the address does not exist."""
    return f"{_REPORTED}: {status}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Suppression:
    """One suppressed address."""

    address_hash: bytes
    at: datetime
    cause: str

    @property
    def code(self) -> str:
        """The cause in short: the enhanced status, ``complaint``, or what the operator has written."""
        found = _WITH_STATUS.fullmatch(self.cause)
        return self.cause if found is None else found[1]


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
