"""How many notices each day has planned, and the days on which far more were new than on a usual one.

`token_pipelines.growth` decides how many are too many.
"""

import statistics
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert

from token_pipelines.ledger.tables import growth_trips, planned_days
from token_pipelines.ledger.transactions import Begin
from token_pipelines.model import Mode


@dataclass(frozen=True, kw_only=True, slots=True)
class GrowthTrip:
    """A day on which far more notices were new than on a usual day."""

    day: date
    new_notices: int
    usual: int


class Growth:
    """The daily numbers of one ledger. A dry run sees those of live runs."""

    def __init__(self, begin: Begin) -> None:
        """Work in the transactions that ``begin`` opens."""
        self._begin = begin

    def usual(self, mode: Mode, *, before: date, days: int, least: int) -> int | None:
        """The median of new notices on the last ``days`` days with a run; None if there are fewer than ``least``."""
        query = (
            select(planned_days.c.new_notices)
            .where(planned_days.c.mode == mode.in_ledger, planned_days.c.day < before)
            .order_by(planned_days.c.day.desc())
            .limit(days)
        )
        with self._begin() as connection:
            numbers = list(connection.scalars(query))
        return round(statistics.median(numbers)) if len(numbers) >= least else None

    def unapproved(self, mode: Mode, day: date) -> int:
        """How many notices were planned on this day so far, without those that a person has approved."""
        query = select(planned_days.c.unapproved).where(
            planned_days.c.mode == mode.in_ledger, planned_days.c.day == day
        )
        with self._begin() as connection:
            return connection.scalar(query) or 0

    def add(self, mode: Mode, day: date, new_notices: int, *, approved: bool) -> None:
        """Count what a run has planned on this calendar day."""
        counted = 0 if approved else new_notices
        row = insert(planned_days).values(mode=mode.in_ledger, day=day, new_notices=new_notices, unapproved=counted)
        more = {
            "new_notices": planned_days.c.new_notices + row.excluded.new_notices,
            "unapproved": 0 if approved else planned_days.c.unapproved + row.excluded.unapproved,
        }
        keys = [planned_days.c.mode, planned_days.c.day]
        with self._begin() as connection:
            connection.execute(row.on_conflict_do_update(index_elements=keys, set_=more))

    def open_trips(self, mode: Mode) -> list[GrowthTrip]:
        """The trips that nobody has approved, oldest first."""
        columns = growth_trips.c
        query = (
            select(columns.day, columns.new_notices, columns.usual)
            .where(columns.mode == mode.in_ledger, columns.approved_at.is_(None))
            .order_by(columns.trip_id)
        )
        with self._begin() as connection:
            return [
                GrowthTrip(day=row.day, new_notices=row.new_notices, usual=row.usual)
                for row in connection.execute(query)
            ]

    def trip(self, trip: GrowthTrip, *, mode: Mode, run_id: str, at: datetime) -> None:
        """Stop sending, on this day and on later ones, until the trip is approved or the limit raised."""
        values = {"at": at, "day": trip.day, "mode": mode.in_ledger, "run_id": run_id}
        with self._begin() as connection:
            connection.execute(growth_trips.insert().values(**values, new_notices=trip.new_notices, usual=trip.usual))

    def approve(self, mode: Mode, *, at: datetime) -> None:
        """Approve every trip of this mode."""
        mine = (growth_trips.c.mode == mode.in_ledger, growth_trips.c.approved_at.is_(None))
        with self._begin() as connection:
            connection.execute(update(growth_trips).where(*mine).values(approved_at=at))
