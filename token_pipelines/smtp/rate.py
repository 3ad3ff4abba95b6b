"""How fast messages may be sent, over all connections together. A relay that asks for less gets less."""

import time
from collections.abc import Callable
from typing import Final

_BURST_SECONDS: Final = 0.1  # how much may be sent at once after a pause, to make up for delays in the process

ADJUST_EVERY_S: Final = 1.0
"""At most one change in this time: answers to what was sent before a change say nothing about it."""

SLOWER: Final = 0.5
FASTER: Final = 1.1
LOWEST: Final = 0.2
"""Messages a second."""
UNLIMITED: Final = 2000.0
"""Messages a second above which a limit that was found makes no difference any more."""


class RateLimit:
    """A token bucket, for one thread. It never waits: the caller does.

    `slow_down` halves the rate at which messages were accepted in the last second. `speed_up` raises it by a tenth a
    second, up to the configured one.

    Attributes:
        per_second: messages a second; None means no limit.
    """

    def __init__(self, per_second: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """``per_second`` is the highest rate. ``clock`` returns seconds and never goes back."""
        self._highest = per_second
        self._clock = clock
        self._next = clock()
        self._changed_at = self._next - ADJUST_EVERY_S
        self._counted_from, self._counted, self._counted_before = self._next, 0, 0
        self._set(per_second)

    def _set(self, per_second: float | None) -> None:
        self.per_second = per_second
        self._interval = 0.0 if per_second is None else 1 / per_second
        self._slack = 0.0 if per_second is None else max(_BURST_SECONDS - self._interval, 0.0)

    def take_at_once(self) -> bool:
        """Take a place if one is free now; whether it was."""
        if not self._interval:
            return True
        now = self._clock()
        if self._next > now:
            return False
        self._next = max(self._next, now - self._slack) + self._interval
        return True

    def seconds_left(self) -> float:
        """The seconds until the next place is free; 0 if one is free now."""
        return max(self._next - self._clock(), 0.0) if self._interval else 0.0

    @property
    def is_lowest(self) -> bool:
        """Whether `slow_down` would change nothing."""
        return self.per_second is not None and self.per_second <= LOWEST

    def slow_down(self) -> None:
        """The relay asks for less."""
        now = self._clock()
        if now - self._changed_at < ADJUST_EVERY_S:
            return
        self._changed_at = now
        found = float(self._accepted_lately(now))
        rate = found if self.per_second is None else min(self.per_second, found or self.per_second)
        self._set(max(LOWEST, rate * SLOWER if rate else 1.0))
        self._next = now + self._interval

    def speed_up(self) -> None:
        """The relay has accepted a message."""
        now = self._clock()
        self._accepted_lately(now)
        self._counted += 1
        if self.per_second == self._highest or now - self._changed_at < ADJUST_EVERY_S or self.per_second is None:
            return
        self._changed_at = now
        faster = self.per_second * FASTER
        if self._highest is None:
            self._set(None if faster > UNLIMITED else faster)
        else:
            self._set(min(faster, self._highest))

    def _accepted_lately(self, now: float) -> int:
        """Messages accepted in the present second and the one before, at the higher of the two."""
        if now - self._counted_from >= 1.0:
            is_next = now - self._counted_from < 2.0  # noqa: PLR2004 -- seconds
            self._counted_before = self._counted if is_next else 0
            self._counted_from, self._counted = now, 0
        return max(self._counted, self._counted_before)
