"""The part of the volume fuse that grows with the ledger: far more notices than on a usual day stop the run.

`delivery.max_notices` is a hard limit for everybody; a small service would reach it only after mailing everyone it has.
"""

import math
from datetime import datetime
from typing import Final

from token_pipelines.ledger.growth import Growth, GrowthTrip
from token_pipelines.pipeline import Pipeline

DAYS: Final = 14
"""A usual day is the median of this many days with a run."""

DAYS_FIRST: Final = 2
"""So many days must have had a run before: the first ones of a ledger tell everybody who is due already."""

FLOOR: Final = 500
"""Fewer notices than this never trip it."""


def open_growth_trip(pipeline: Pipeline, growth: Growth) -> GrowthTrip | None:
    """The oldest trip that still stops sending: nobody approved it, and it is over the present delivery.max_growth."""
    delivery = pipeline.config.delivery
    if delivery.max_growth is None:
        return None
    trips = growth.open_trips(delivery.mode)
    return next((trip for trip in trips if trip.new_notices > _limit(trip.usual, delivery.max_growth)), None)


def find_growth_trip(pipeline: Pipeline, growth: Growth, new_notices: int, now: datetime) -> GrowthTrip | None:
    """What planning this many new notices now would trip, together with those of the same day; None if nothing."""
    delivery = pipeline.config.delivery
    today = pipeline.config.schedule.today(now)
    usual = growth.usual(delivery.mode, before=today, days=DAYS, least=DAYS_FIRST)
    if delivery.max_growth is None or usual is None or not new_notices:
        return None
    counted = new_notices + growth.unapproved(delivery.mode, today)
    if counted <= _limit(usual, delivery.max_growth):
        return None
    return GrowthTrip(day=today, new_notices=counted, usual=usual)


def explain_growth(trip: GrowthTrip, pipeline: Pipeline) -> str:
    """The operator's message: why nothing is sent, and what to do."""
    max_growth = pipeline.config.delivery.max_growth or 0
    limit = _limit(trip.usual, max_growth)
    raised = (
        f"raise delivery.max_growth to at least {math.ceil(trip.new_notices / trip.usual)} or set it to null"
        if trip.usual
        else "set delivery.max_growth to null"
    )
    return (
        f"The volume fuse has tripped: {trip.new_notices} notices were new on {trip.day}, over the {limit} that "
        f"delivery.max_growth allows ({max_growth:g} times the {trip.usual} of a usual day, and at least {FLOOR}); "
        f"nothing was planned and nothing is sent. Look at the day in the UI, then approve it (token-pipelines "
        f"run{pipeline.config.option} --approve-volume), {raised}, or fix the source."
    )


def _limit(usual: int, max_growth: float) -> int:
    return max(FLOOR, math.floor(usual * max_growth))
