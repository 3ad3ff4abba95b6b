"""Clocks: they say what time it is for a pipeline. Every decision of a run uses its pipeline's clock."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""Returns the present instant, with its zone."""


def system_clock() -> datetime:
    """The present instant, in UTC."""
    return datetime.now(UTC)


def clock_starting_at(now: datetime) -> Clock:
    """A clock for rehearsals: it returns ``now`` when it is first read, and goes on from there."""
    first_read: list[float] = []

    def clock() -> datetime:
        if not first_read:
            first_read.append(time.monotonic())
            return now
        return now + timedelta(seconds=time.monotonic() - first_read[0])

    return clock
