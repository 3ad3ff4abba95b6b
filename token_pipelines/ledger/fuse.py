"""The volume fuse in the ledger: what was planned, when the fuse tripped, and who approved that.

`token_pipelines.planning` alone decides whether a day is too large, and trips the fuse.
"""

from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import func, select, update

from token_pipelines.ledger.tables import fuse_trips, notices, plans
from token_pipelines.ledger.transactions import Begin
from token_pipelines.model import Mode, State


@dataclass(frozen=True, kw_only=True, slots=True)
class Trip:
    """A day on which more notices were new than ``delivery.max_notices`` allowed at the time.

    ``new_notices`` counts what earlier runs had planned since the last scheduled instant, too.
    """

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

    def approve(self, mode: Mode, *, at: datetime, by: str, up_to: int | None = None) -> None:
        """Approve every trip of this mode; with ``up_to``, only those of at most this many notices.

        ``by`` says who: a person with the run, or the key of the config that allows it now.
        """
        trips = update(fuse_trips).where(fuse_trips.c.mode == mode.in_ledger, fuse_trips.c.approved_at.is_(None))
        if up_to is not None:
            trips = trips.where(fuse_trips.c.new_notices <= up_to)
        with self._begin() as connection:
            connection.execute(trips.values(approved_at=at, approved_by=by))

    def planned_since(self, mode: Mode, since: datetime) -> int:
        """How many new notices the runs have planned from this instant on, or since a person approved a volume."""
        mine = (plans.c.mode == mode.in_ledger, plans.c.at >= since)
        approved = select(func.coalesce(func.max(plans.c.plan_id), 0)).where(*mine, plans.c.approved_by.is_not(None))
        total = func.coalesce(func.sum(plans.c.new_notices), 0)
        query = select(total).where(*mine, plans.c.plan_id > approved.scalar_subquery())
        with self._begin() as connection:
            return int(connection.execute(query).scalar_one())

    def add_plan(
        self, day: date, new_notices: int, *, mode: Mode, run_id: str, at: datetime, approved_by: str | None
    ) -> None:
        """Count what a run has planned."""
        row = {"day": day, "mode": mode.in_ledger, "run_id": run_id, "at": at, "approved_by": approved_by}
        with self._begin() as connection:
            connection.execute(plans.insert().values(**row, new_notices=new_notices))

    def planned_on(self, day: date, mode: Mode) -> int:
        """How many notices were planned on this day and not withdrawn since."""
        query = select(func.count()).where(
            notices.c.day == day, notices.c.mode == mode.in_ledger, notices.c.state != State.WITHDRAWN
        )
        with self._begin() as connection:
            return connection.execute(query).scalar_one()
