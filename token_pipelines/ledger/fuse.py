"""The volume fuse in the ledger: when it tripped, and when that was approved.

`token_pipelines.planning` alone decides whether a day is too large, and trips the fuse.
"""

from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import func, select, update

from token_pipelines.ledger.tables import fuse_trips, notices
from token_pipelines.ledger.transactions import Begin
from token_pipelines.model import Mode, State


@dataclass(frozen=True, kw_only=True, slots=True)
class Trip:
    """A day on which more notices were new than ``delivery.max_notices`` allowed at the time."""

    day: date
    new_notices: int
    max_notices: int


class Fuse:
    """The trips of one ledger's fuse, and their approval. A dry run sees the trips of live runs."""

    def __init__(self, begin: Begin) -> None:
        """Work in the transactions that ``begin`` opens."""
        self._begin = begin

    def open_trip(self, mode: Mode, *, max_notices: int) -> Trip | None:
        """The oldest trip that still stops sending: it was not approved, and is larger than the present limit."""
        columns = fuse_trips.c
        query = (
            select(columns.day, columns.new_notices, columns.max_notices)
            .where(columns.mode == mode.in_ledger, columns.approved_at.is_(None), columns.new_notices > max_notices)
            .order_by(columns.trip_id)
            .limit(1)
        )
        with self._begin() as connection:
            row = connection.execute(query).first()
        return None if row is None else Trip(day=row.day, new_notices=row.new_notices, max_notices=row.max_notices)

    def trip(self, trip: Trip, *, mode: Mode, run_id: str, at: datetime) -> None:
        """Stop sending, on this day and on later ones, until the trip is approved."""
        values = {
            "at": at,
            "day": trip.day,
            "mode": mode.in_ledger,
            "run_id": run_id,
            "new_notices": trip.new_notices,
            "max_notices": trip.max_notices,
        }
        with self._begin() as connection:
            connection.execute(fuse_trips.insert().values(values))

    def approve(self, mode: Mode, *, at: datetime, up_to: int | None = None) -> None:
        """Approve every trip of this mode; with ``up_to``, only those of at most this many notices."""
        trips = update(fuse_trips).where(fuse_trips.c.mode == mode.in_ledger, fuse_trips.c.approved_at.is_(None))
        if up_to is not None:
            trips = trips.where(fuse_trips.c.new_notices <= up_to)
        with self._begin() as connection:
            connection.execute(trips.values(approved_at=at))

    def planned_on(self, day: date, mode: Mode) -> int:
        """How many notices were planned on this day and not withdrawn since."""
        query = select(func.count()).where(
            notices.c.day == day, notices.c.mode == mode.in_ledger, notices.c.state != State.WITHDRAWN
        )
        with self._begin() as connection:
            return connection.execute(query).scalar_one()
