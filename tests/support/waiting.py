"""Waiting for something that another process does, without a bare sleep."""

import time
from collections.abc import Callable

POLL_SECONDS = 0.02


def wait_until(condition: Callable[[], object], *, seconds: float = 10, what: str = "the condition") -> None:
    """Return as soon as ``condition()`` is true; fail when it is not within ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            msg = f"{what} did not come true within {seconds} s"
            raise AssertionError(msg)
        time.sleep(POLL_SECONDS)
