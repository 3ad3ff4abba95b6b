"""The threads that send, and how they share the machine. What they do is ``delivery``'s business."""

import contextlib
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor


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
