"""The suppression list: keyed hashes of addresses, with the time and the cause. Never an address itself."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, delete, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.dml import ReturningUpdate

from token_pipelines.ledger.tables import attempts, notice_tokens, notices, suppressions
from token_pipelines.model import State

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

    def remove_since(self, since: datetime, *, code: str) -> tuple[int, int]:
        """Take off the list what was suppressed at this instant or later for this cause (`Suppression.code`).

        Notices that failed at these addresses for the same cause wait again, so the next run sends them while their
        tier lasts.

        Returns:
            How many addresses were removed, and how many notices wait again.
        """
        causes = (code, reported(code), f"{_REFUSED}: {code}")
        wrong = delete(suppressions).where(suppressions.c.at >= since, suppressions.c.cause.in_(causes))
        with self._engine.begin() as connection:
            hashes = [bytes(found) for found in connection.scalars(wrong.returning(suppressions.c.address_hash))]
            waiting = connection.execute(_wait_again(hashes, code)).all() if hashes else []
        return len(hashes), len(waiting)

    def is_empty(self) -> bool:
        """Whether no address is on the list."""
        with self._engine.begin() as connection:
            return connection.execute(select(suppressions.c.at).limit(1)).first() is None

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


def _wait_again(hashes: Collection[bytes], code: str) -> ReturningUpdate[tuple[Any]]:
    """Defer the notices whose last attempt failed at one of these addresses for this cause."""
    each, newer = attempts.alias("each"), attempts.alias("newer")
    is_newer = (newer.c.notice_id == each.c.notice_id, newer.c.attempt_id > each.c.attempt_id)
    refused = (
        select(each.c.notice_id)
        .where(each.c.address_hash == func.any(list(hashes)), each.c.state == State.FAILED, each.c.enhanced == code)
        .where(~exists().where(*is_newer).correlate(each))
    )
    line = notice_tokens.alias("line")
    has_lines = exists().where(line.c.notice_id == notices.c.notice_id, ~line.c.released).correlate(notices)
    mine = (notices.c.notice_id.in_(refused), notices.c.state == State.FAILED, has_lines)
    return update(notices).where(*mine).values(state=State.DEFERRED).returning(notices.c.notice_id)
