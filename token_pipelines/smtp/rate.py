"""How fast messages may be sent, over all connections together."""

import time
from collections.abc import Callable
from typing import Final

_BURST_SECONDS: Final = 0.1  # how much may be sent at once after a pause, to make up for delays in the process


class RateLimit:
    """A token bucket, for one thread. ``per_second`` None means no limit. It never waits: the caller does."""

    def __init__(self, per_second: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` returns seconds and never goes back."""
        self.per_second = per_second
        self._interval = 0.0 if per_second is None else 1 / per_second
        self._slack = 0.0 if per_second is None else max(_BURST_SECONDS - self._interval, 0.0)
        self._clock = clock
        self._next = clock()

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
