"""The connections of one tier's run: opened in helper threads, waited for together, opened again after a pause."""

import selectors
import socket
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from types import TracebackType
from typing import Final, Self

from token_pipelines.channel import Channel
from token_pipelines.delivery.emails import Email
from token_pipelines.delivery.helper_pool import HelperPool
from token_pipelines.errors import RelayError
from token_pipelines.smtp.lane import Lane

_READ: Final = selectors.EVENT_READ
_BOTH: Final = selectors.EVENT_READ | selectors.EVENT_WRITE


@dataclass(slots=True, eq=False)
class Slot:
    """A place for one connection. ``troubles`` counts what happened since the relay last took a message there."""

    troubles: int = 0
    opens_at: float = 0.0


@dataclass(slots=True, eq=False)
class Connection:
    """A lane, and the emails on it."""

    lane: Lane
    slot: Slot
    email: Email | None = None
    """Offered or said, and without an outcome yet."""
    following: Email | None = None
    """The one whose commands were said behind its dot."""
    is_used: bool = False
    """Whether something became of a message on it."""
    events: int = _READ


class Connections:
    """``open`` are those that are open. Only `wake` may be called from another thread."""

    def __init__(self, channel: Channel, helpers: HelperPool, *, count: int, pauses: Iterable[timedelta]) -> None:
        """Begin to open ``count`` connections. A slot that fails takes all ``pauses`` in turn, then is given up."""
        self._channel = channel
        self._helpers = helpers
        self._pauses = [pause.total_seconds() for pause in pauses]
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._waker.settimeout(0.0)
        self._selector.register(self._woken, _READ)
        self.open: set[Connection] = set()
        self._opening: dict[Future[Lane], Slot] = {}
        self._closed = [Slot() for _ in range(count)]
        self.unconnected: RelayError | None = None
        self.open_more(count)

    def wake(self) -> None:
        """End a `wait`."""
        with suppress(BlockingIOError, OSError):  # full: it wakes anyway; closed: nobody waits
            self._waker.send(b".")

    def wait(self, seconds: float) -> list[Connection]:
        """Wait until relays are ready, or something else happens; which connections are."""
        ready = []
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                self._woken.recv(4096)
            else:
                ready.append(key.data)
        return ready

    def watch(self, connection: Connection) -> None:
        """Wait for the socket as the lane needs it."""
        events = _BOTH if connection.lane.has_unsaid else _READ
        if events != connection.events:
            connection.events = events
            self._selector.modify(connection.lane, events, connection)

    @property
    def opening(self) -> int:
        """How many are being opened."""
        return len(self._opening)

    @property
    def is_hopeless(self) -> bool:
        """Whether none is open, and none will be."""
        return not (self.open or self._opening or self._closed)

    def open_more(self, count: int) -> None:
        """Begin to open up to ``count`` connections, in slots whose pause is over."""
        now = monotonic()
        for slot in [slot for slot in self._closed if slot.opens_at <= now][: max(0, count)]:
            self._closed.remove(slot)
            lane = self._helpers.run(self._channel.connect)
            self._opening[lane] = slot
            lane.add_done_callback(lambda _: self.wake())

    def take_opened(self) -> list[Connection]:
        """Those that are open since the last call.

        Raises:
            RelayError: one could not be opened, and a pause does not help.
        """
        opened = []
        for future in [future for future in self._opening if future.done()]:
            slot = self._opening.pop(future)
            try:
                connection = Connection(future.result(), slot)
            except RelayError as error:
                if not error.may_pass:
                    raise
                if not self.pause(slot):
                    self.unconnected = error
                continue
            self._selector.register(connection.lane, _READ, connection)
            self.open.add(connection)
            opened.append(connection)
        return opened

    def pause(self, slot: Slot) -> bool:
        """Open this place again after a pause, the longer the more troubles it had; False when it is given up."""
        slot.troubles += 1
        if slot.troubles > len(self._pauses):
            return False
        slot.opens_at = monotonic() + self._pauses[slot.troubles - 1]
        self._closed.append(slot)
        return True

    def hang_up(self, connection: Connection) -> None:
        """Close at once. Its place is the caller's: `pause` or `give_back`."""
        self._forget(connection)
        connection.lane.close()

    def say_goodbye(self, connection: Connection) -> None:
        """Close with a QUIT, in a helper thread."""
        self._forget(connection)
        self._helpers.run(connection.lane.quit)

    def give_back(self, slot: Slot) -> None:
        """This place may be used again at once."""
        self._closed.append(slot)

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up on what is still open, and on what is opened later."""
        for connection in list(self.open):
            self.hang_up(connection)
        for future in self._opening:
            future.cancel()
            future.add_done_callback(_close_unused)
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def _forget(self, connection: Connection) -> None:
        self.open.discard(connection)
        self._selector.unregister(connection.lane)


def _close_unused(future: Future[Lane]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()
