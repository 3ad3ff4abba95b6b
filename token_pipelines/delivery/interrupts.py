"""SIGINT and SIGTERM while messages are on sockets: the first one is put off until these are answered."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def put_off(on_first: Callable[[], None]) -> Iterator[None]:
    """Call ``on_first`` at the first signal, and pass that on to its handler when the block ends; a second one at once.

    Each handler is the one that is found: Python's raises KeyboardInterrupt, Dagster's an error of its own. A signal
    that has no handler in Python keeps its effect. In any other thread than the main one there are no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found: dict[int, Callable[[int, FrameType | None], Any]] = {}
    put_off: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        put_off.append(number)
        if len(put_off) == 1:
            on_first()
        else:
            found[number](number, frame)

    for number in map(int, NUMBERS):
        handler = signal.getsignal(number)
        if callable(handler):
            found[number] = handler
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in found.items():
            signal.signal(number, handler)
        if len(put_off) == 1:
            found[put_off[0]](put_off[0], None)
