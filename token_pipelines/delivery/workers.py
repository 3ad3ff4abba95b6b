"""The threads that send one tier, one a connection: how they share the work, and what stops them.

What each does with its share is ``delivery``'s business.
"""

import contextlib
import logging
import os
import queue
import random
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import count
from typing import Final, Protocol

from token_pipelines.config import Smtp
from token_pipelines.delivery.breaker import Breaker
from token_pipelines.errors import RelayError, TokenPipelinesError, whereabouts

log = logging.getLogger(__name__)

CLAIM_SIZE: Final = 500
"""Notices claimed and read again at a time: large enough to be cheap, small enough that two runs share the work."""


class Sender(Protocol):
    """What one thread sends with. Each method may raise any TokenPipelinesError."""

    def connect(self) -> None:
        """Have a connection to the relay."""

    def send_batch(self, notice_ids: list[str], /) -> None:
        """Send these notices."""

    def close(self) -> None:
        """Give the connection up."""


class WorkerPool:
    """One tier's threads. The first one in everybody's trouble stops all."""

    def __init__(self, smtp: Smtp, make_sender: Callable[["WorkerPool"], Sender]) -> None:
        """Nothing is opened before ``send_all``; ``make_sender`` gives each thread a sender of its own."""
        self.breaker = Breaker()
        self.stopped = threading.Event()
        self._smtp = smtp
        self._make_sender = make_sender
        self._trouble: TokenPipelinesError | None = None
        self._unconnected: RelayError | None = None

    def send_all(self, notice_ids: list[str]) -> None:
        """Share the notices out among the threads, and wait for all of them."""
        threads = max(1, min(self._smtp.connections, len(notice_ids)))
        size = max(1, min(CLAIM_SIZE, len(notice_ids) // threads))
        batches: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        rest = notice_ids
        for number in count(1):
            if not rest:
                break
            # The first ones differ in size: else all threads would read the source at once, time after time, and none
            # would send meanwhile.
            share = max(1, size * min(number, threads) // threads)
            batches.put(rest[:share])
            rest = rest[share:]
        with senders(threads) as pool:
            work = [pool.submit(self._work, batches) for _ in range(threads)]
            try:
                wait(work)
            except BaseException:  # a signal: finish what is on the sockets, begin nothing new
                self.stopped.set()
                raise
        if self._unconnected is not None and not batches.empty():  # nobody had a connection to the end
            self._stop(self._unconnected)

    def raise_trouble(self) -> None:
        """Raise what stopped the crew, or what befell all that it tried."""
        trouble = self._trouble or self.breaker.trouble
        if trouble is not None:
            raise trouble

    def pause_or_give_up(self, error: RelayError, troubles: int) -> None:
        """Pause after the relay's trouble that may pass; raise it when it has been too often, or will not pass."""
        if not self._pauses(error, troubles):
            raise error

    def _work(self, batches: queue.SimpleQueue[list[str]]) -> None:
        sender = self._make_sender(self)
        try:
            # Connected first, then claimed: a relay may allow fewer connections than we are, and the others go on.
            while not self.stopped.is_set() and not batches.empty() and self._connects(sender):
                sender.send_batch(batches.get_nowait())
        except queue.Empty:
            pass
        except TokenPipelinesError as error:
            self._stop(error)
        except Exception as error:  # noqa: BLE001 -- a thread's fault of ours must stop the tier, not vanish
            log.error("A sender ended by a fault of ours: %s", whereabouts(error))  # noqa: TRY400 -- a traceback may quote an address
            msg = f"Sending stopped by a fault of ours ({whereabouts(error)}); please report it."
            self._stop(TokenPipelinesError(msg))
        finally:
            sender.close()

    def _connects(self, sender: Sender) -> bool:
        """Whether the relay gives this one a connection, now or after some pauses."""
        for troubles in count(1):
            try:
                sender.connect()
            except RelayError as error:
                if not error.may_pass:
                    raise
                if not self._pauses(error, troubles):
                    self._unconnected = error
                    return False
            else:
                return True
        raise AssertionError

    def _pauses(self, error: RelayError, troubles: int) -> bool:
        pauses = self._smtp.reconnect_pauses
        return (
            error.may_pass and troubles <= len(pauses) and not self.stopped.wait(pauses[troubles - 1].total_seconds())
        )

    def _stop(self, error: TokenPipelinesError) -> None:
        self._trouble = self._trouble or error
        self.stopped.set()


def senders(count: int) -> ThreadPoolExecutor:
    """A pool of so many threads that stay on one core together.

    They share one interpreter lock, so only one of them runs at a time anyway. Spread over cores, each short wait on a
    socket wakes a thread on another core, which finds the lock taken, or its caches cold: with four connections a
    message took 500 microseconds of processor time and 2,000 left in a second; on one core, 210 and 4,000.
    """
    if sys.platform != "linux":
        return ThreadPoolExecutor(max_workers=count, thread_name_prefix="sender")
    # Any that we may use: other work is free to move away from it.
    core = random.choice(sorted(os.sched_getaffinity(0)))  # noqa: S311 -- no secret
    return ThreadPoolExecutor(max_workers=count, thread_name_prefix="sender", initializer=_stay_on, initargs=(core,))


def _stay_on(core: int) -> None:
    with contextlib.suppress(OSError):  # a container may forbid it: then it is only slower
        os.sched_setaffinity(0, {core})  # 0 is the calling thread, not the process
