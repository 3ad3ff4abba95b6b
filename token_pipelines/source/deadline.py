"""Limits the time of a read from our side: interrupts the running statement when the time is over."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Final

from token_pipelines.errors import SourceError

AGAIN_S: Final = 1.0
"""Pause between interruptions. One may fall between two statements, so they repeat until the read has ended."""

JOIN_S: Final = 10.0
"""How long the end of a read waits for an interruption that has begun."""

TOO_LONG: Final = "Reading the source took longer than source.deadline; raise it, or narrow the query."


class Deadline:
    """The instant by which a read, with its retries, must be over. ``says`` is the error's sentence."""

    def __init__(self, after: timedelta, says: str = TOO_LONG) -> None:
        """Start the clock now."""
        self._end = time.monotonic() + after.total_seconds()
        self._says = says

    @property
    def left(self) -> float:
        """Seconds; never negative."""
        return max(self._end - time.monotonic(), 0.0)

    @contextmanager
    def watch(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """Call ``interrupt`` from another thread if the time is over before the block ends; its errors are ignored.

        Raises:
            SourceError: instead of the block's own error, when the time is over.
        """
        done = threading.Event()
        watcher = threading.Thread(target=self._wait, args=(done, interrupt), daemon=True)
        watcher.start()
        try:
            yield
            self.check()
        except Exception:
            self.check()
            raise
        finally:
            done.set()
            watcher.join(JOIN_S)

    def check(self) -> None:
        """Raise the SourceError when the time is over."""
        if not self.left:
            raise SourceError(self._says) from None

    def _wait(self, done: threading.Event, interrupt: Callable[[], None]) -> None:
        wait = self.left
        while not done.wait(wait):
            wait = AGAIN_S
            with suppress(Exception):
                interrupt()
