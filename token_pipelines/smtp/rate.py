"""How fast messages may leave, over all connections together."""

import threading
import time
from collections.abc import Callable
from typing import Final

_BURST_SECONDS: Final = 0.1  # what may leave at once after a pause: enough to hide a thread's hiccup


class RateLimit:
    """A token bucket, shared by threads. ``per_second`` None is no limit."""

    def __init__(self, per_second: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` counts seconds and never goes back."""
        self._interval = 0.0 if per_second is None else 1 / per_second
        self._slack = 0.0 if per_second is None else max(_BURST_SECONDS - self._interval, 0.0)
        self._clock = clock
        self._lock = threading.Lock()
        self._next = clock()

    def take(self) -> float:
        """Take a place. Returns the seconds until it comes, to be waited for."""
        if not self._interval:
            return 0.0
        with self._lock:
            now, place = self._next_place()
            self._next = place + self._interval
        return max(place - now, 0.0)

    def take_at_once(self) -> bool:
        """Take a place if it has come already."""
        if not self._interval:
            return True
        with self._lock:
            now, place = self._next_place()
            if place > now:
                return False
            self._next = place + self._interval
        return True

    def _next_place(self) -> tuple[float, float]:
        now = self._clock()
        return now, max(self._next, now - self._slack)
