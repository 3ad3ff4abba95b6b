"""Clocks: what a pipeline takes for the present instant. Every decision of a run asks its pipeline's clock."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Gives the present instant, with its zone."""


def system_clock() -> datetime:
    """The present instant, in UTC."""
    return datetime.now(UTC)


def clock_starting_at(now: datetime) -> Clock:
    """A clock for rehearsals: it shows ``now`` when it is first read, and runs on from there."""
    first_read: list[float] = []

    def clock() -> datetime:
        if not first_read:
            first_read.append(time.monotonic())
            return now
        return now + timedelta(seconds=time.monotonic() - first_read[0])

    return clock
