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


def accept(limit: RateLimit, clock: Clock, *, per_second: float, seconds: int) -> None:
    for _ in range(int(per_second * seconds)):
        clock.now += 1 / per_second
        limit.speed_up()


def test_slow_down_halves_what_was_accepted_at_most_once_a_second() -> None:
    clock = Clock()
    limit = RateLimit(None, clock=clock)
    accept(limit, clock, per_second=40, seconds=3)
    for _ in range(100):
        limit.slow_down()
    assert limit.per_second == pytest.approx(20, abs=1)
    clock.now += 1.01
    limit.slow_down()
    assert limit.per_second == pytest.approx(10, abs=1)


def test_slow_down_without_anything_accepted_begins_low_and_has_a_floor() -> None:
    clock = Clock()
    limit = RateLimit(None, clock=clock)
    found = []
    for _ in range(5):
        limit.slow_down()
        found.append(limit.per_second)
        clock.now += 1.01
    assert found == [1.0, 0.5, 0.25, 0.2, 0.2]
    assert limit.is_lowest


@pytest.mark.parametrize("highest", [None, 50.0])
def test_speed_up_raises_the_rate_to_the_configured_one(highest: float | None) -> None:
    clock = Clock()
    limit = RateLimit(highest, clock=clock)
    limit.slow_down()
    assert limit.per_second is not None
    before = limit.per_second
    accept(limit, clock, per_second=1, seconds=3)
    assert limit.per_second == pytest.approx(before * 1.1**3, rel=0.11)
    accept(limit, clock, per_second=1, seconds=100)
    assert limit.per_second == highest


def test_rate_found_is_kept_between_changes() -> None:
    clock = Clock()
    limit = RateLimit(None, clock=clock)
    limit.slow_down()
    assert [limit.take_at_once(), limit.seconds_left()] == [False, pytest.approx(1.0)]
    clock.wait(limit)
    assert limit.seconds_left() == pytest.approx(1.0)
