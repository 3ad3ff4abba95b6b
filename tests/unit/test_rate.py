"""The rate limit, by a clock of the test's own."""

import threading

import pytest

from token_pipelines.mail.rate import RateLimit


class Clock:
    """Time passes only when someone sleeps, or the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_wait_no_limit() -> None:
    """Nobody waits."""
    clock = Clock()
    limit = RateLimit(None, clock=clock, sleep=clock.sleep)
    assert sum(limit.wait() for _ in range(1000)) == 0


@pytest.mark.parametrize("rate", [0.5, 10.0, 50.0, 1000.0])
def test_wait_steady(rate: float) -> None:
    """So many messages take so long, but for the first few."""
    clock = Clock()
    limit = RateLimit(rate, clock=clock, sleep=clock.sleep)
    for _ in range(101):
        limit.wait()
    assert clock.now - 1000.0 == pytest.approx(100 / rate)


def test_wait_after_a_pause() -> None:
    """A pause earns a tenth of a second's worth, not the whole pause's."""
    clock = Clock()
    limit = RateLimit(50, clock=clock, sleep=clock.sleep)
    limit.wait()
    clock.now += 60
    assert [round(limit.wait(), 6) for _ in range(7)] == [0, 0, 0, 0, 0, 0.02, 0.02]


def test_wait_threads_share() -> None:
    """Ten threads get ten different places."""
    waits: list[float] = []
    limit = RateLimit(10, clock=lambda: 0.0, sleep=waits.append)
    threads = [threading.Thread(target=limit.wait) for _ in range(11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(round(wait, 6) for wait in waits) == [round(i / 10, 6) for i in range(1, 11)]
