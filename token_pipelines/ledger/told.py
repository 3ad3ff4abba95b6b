"""What recipients were told and which addresses refused: by this ledger's notices, or as an operator has marked."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

import pandas as pd
from sqlalchemy import Connection, delete, func, select, text

from token_pipelines.ledger.copying import copy_out
from token_pipelines.ledger.tables import attempts, notice_tokens, notices, told_before
from token_pipelines.ledger.transactions import Begin
from token_pipelines.model import TOLD, Mode, State
from token_pipelines.policy import HISTORY_COLUMNS, Window, no_history

# The order of the joins is forced. Right after a bulk load the statistics say that nearly every notice is planned:
# Postgres would begin with the few that were told, and look up each of them among the lines of the batch.
_SUPERSEDED_LINES: Final = text(f"""
WITH mine AS MATERIALIZED (
    SELECT notice_id, token_id, recipient_id, expires_at, mode, threshold
    FROM token_pipelines.notice_tokens WHERE notice_id = ANY(:ids) AND NOT released
)
SELECT mine.notice_id, mine.token_id
FROM mine
CROSS JOIN LATERAL (
    SELECT later.notice_id FROM token_pipelines.notice_tokens AS later
    WHERE later.token_id = mine.token_id AND later.recipient_id = mine.recipient_id
        AND later.expires_at = mine.expires_at AND later.mode = mine.mode
        AND NOT later.released AND later.threshold > mine.threshold
    OFFSET 0
) AS later
CROSS JOIN LATERAL (
    SELECT state FROM token_pipelines.notices WHERE notices.notice_id = later.notice_id OFFSET 0
) AS notice
WHERE notice.state IN ({", ".join(f"'{state}'" for state in TOLD)})
""")  # noqa: S608 -- constants only


class RefusedLine(NamedTuple):
    """One token of a notice that was refused for good, and the keyed hash of the address that refused it."""

    notice_id: str
    token_id: str
    recipient_id: str
    address_hash: bytes | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """An operator's word, given at ``at``: every threshold before ``before`` counts as told."""

    mark_id: int
    at: datetime
    mode: Mode
    before: datetime


class Told:
    """What the recipients of one ledger were told. Takes no lock."""

    def __init__(self, begin: Begin) -> None:
        """Work in the transactions that ``begin`` opens."""
        self._begin = begin

    def history(self, window: Window, mode: Mode) -> pd.DataFrame:
        """What was told and refused, for expiries in the window: columns policy.HISTORY_COLUMNS.

        Empty if the ledger has no tables yet.
        """
        tokens, outcome = notice_tokens.c, notices.c.state
        query = (
            select(
                tokens.token_id,
                tokens.recipient_id,
                tokens.expires_at,
                func.max(tokens.threshold).filter(outcome.in_(TOLD)).label("told"),
                func.max(tokens.threshold).filter(outcome == State.FAILED).label("refused"),
                func.bool_or(outcome == State.SENT).label("sent"),
            )
            .join(notices, notices.c.notice_id == tokens.notice_id)
            .where(tokens.mode == mode.in_ledger, ~tokens.released, outcome.in_([*TOLD, State.FAILED]))
            .where(tokens.expires_at >= window.expires_after, tokens.expires_at < window.expires_before)
            .group_by(tokens.token_id, tokens.recipient_id, tokens.expires_at)
        )
        with self._begin() as connection:
            if not _has_tables(connection):
                return no_history()
            frame: pd.DataFrame = copy_out(connection, query, HISTORY_COLUMNS).to_pandas()
        return frame

    def before(self, mode: Mode) -> datetime | None:
        """The instant before which every threshold counts as told, if an operator has named one with `mark_before`."""
        with self._begin() as connection:
            if not _has_tables(connection):
                return None
            query = select(func.max(told_before.c.before)).where(told_before.c.mode == mode.in_ledger)
            found: datetime | None = connection.scalar(query)
        return found

    def mark_before(self, before: datetime, *, mode: Mode, at: datetime) -> int:
        """Count every threshold before this instant as told: by an older job, or in rows lost by a restore.

        Returns:
            The mark's id, by which `unmark` takes it back.
        """
        mark = told_before.insert().values(mode=mode.in_ledger, before=before, at=at)
        with self._begin() as connection:
            return int(connection.execute(mark.returning(told_before.c.entry_id)).scalar_one())

    def marks(self) -> list[Mark]:
        """Every mark, of every mode, oldest first."""
        query = select(told_before).order_by(told_before.c.entry_id)
        with self._begin() as connection:
            return [_mark(row) for row in connection.execute(query)]

    def unmark(self, mark_id: int) -> Mark | None:
        """Take a mark back, and return it; None if there is none with this id."""
        taken = delete(told_before).where(told_before.c.entry_id == mark_id).returning(told_before)
        with self._begin() as connection:
            row = connection.execute(taken).first()
        return None if row is None else _mark(row)

    def superseded_lines(self, notice_ids: Collection[str]) -> set[tuple[str, str]]:
        """(notice_id, token_id) of the lines of these notices for which another notice has told a later threshold."""
        with self._begin() as connection:
            return {(str(row[0]), row[1]) for row in connection.execute(_SUPERSEDED_LINES, {"ids": list(notice_ids)})}

    def refused(self, token_ids: Collection[str], mode: Mode) -> list[RefusedLine]:
        """The lines about these tokens that were refused for good."""
        last = (
            select(attempts.c.address_hash)
            .where(attempts.c.notice_id == notices.c.notice_id, attempts.c.state == State.FAILED)
            .order_by(attempts.c.attempt_id.desc())
            .limit(1)
            .scalar_subquery()
        )
        query = (
            select(notice_tokens.c.notice_id, notice_tokens.c.token_id, notice_tokens.c.recipient_id, last)
            .join(notices, notices.c.notice_id == notice_tokens.c.notice_id)
            .where(notices.c.mode == mode.in_ledger, notices.c.state == State.FAILED, ~notice_tokens.c.released)
            .where(notice_tokens.c.token_id == func.any(list(token_ids)))
        )
        with self._begin() as connection:
            return [
                RefusedLine(str(row[0]), row[1], row[2], None if row[3] is None else bytes(row[3]))
                for row in connection.execute(query)
            ]


def _mark(row: Any) -> Mark:  # noqa: ANN401 -- a row
    return Mark(mark_id=row.entry_id, at=row.at, mode=Mode(row.mode), before=row.before)


def _has_tables(connection: Connection) -> bool:
    return connection.scalar(text(f"SELECT to_regclass('{notice_tokens}')")) is not None
