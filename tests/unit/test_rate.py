"""The rate limit, by a clock of the test's own."""

import pytest

from token_pipelines.smtp.rate import RateLimit

TICK = 1e-9


class Clock:
    """Time passes only when someone waits for a place, or the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, limit: RateLimit) -> float:
        seconds = limit.seconds_left()
        self.now += seconds
        while not limit.take_at_once():
            self.now += TICK  # the sum of two floats may fall short of a third
        return seconds


def test_take_without_a_limit_waits_for_nothing() -> None:
    clock = Clock()
    limit = RateLimit(None, clock=clock)
    assert sum(clock.wait(limit) for _ in range(1000)) == 0


@pytest.mark.parametrize("rate", [0.5, 10.0, 50.0, 1000.0])
def test_take_steadily_gives_so_many_places_a_second(rate: float) -> None:
    """But for the first few."""
    clock = Clock()
    limit = RateLimit(rate, clock=clock)
    for _ in range(101):
        clock.wait(limit)
    assert clock.now - 1000.0 == pytest.approx(100 / rate)


def test_take_after_a_pause_earns_a_tenth_of_a_second_and_not_the_whole_pause() -> None:
    clock = Clock()
    limit = RateLimit(50, clock=clock)
    clock.wait(limit)
    clock.now += 60
    assert [round(clock.wait(limit), 6) for _ in range(7)] == [0, 0, 0, 0, 0, 0.02, 0.02]


def test_take_at_once_takes_a_place_that_has_come_and_none_that_is_to_come() -> None:
    clock = Clock()
    limit = RateLimit(10, clock=clock)
    assert [limit.take_at_once() for _ in range(3)] == [True, False, False]
    assert clock.wait(limit) == pytest.approx(0.1)
    clock.now += 0.1
    assert limit.take_at_once()
    assert all(RateLimit(None).take_at_once() for _ in range(3))
