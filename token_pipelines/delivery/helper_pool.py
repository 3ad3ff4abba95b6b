"""Threads for what blocks and is no part of a conversation with the relay."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeVar

AT_MOST: Final = 16
"""Connections that are opened at a time."""

P = ParamSpec("P")
T = TypeVar("T")


class HelperPool:
    """One thread reads batches; the others open connections, say goodbye, and run `source.on_sent`."""

    def __init__(self, connections: int) -> None:
        """Start no thread yet. ``connections`` is how many connections the loop has."""
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._others = ThreadPoolExecutor(min(connections, AT_MOST) + 1, thread_name_prefix="helper")

    def read(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Do this in the thread that reads batches."""
        return self._reader.submit(work, *args, **kwargs)

    def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Do this in any of the others."""
        return self._others.submit(work, *args, **kwargs)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until they are done; not when the block is left by an exception."""
        for pool in (self._reader, self._others):
            pool.shutdown(wait=error is None, cancel_futures=error is not None)
