"""The volume fuse's relative half: far more notices than on a usual day."""

from pathlib import Path
from typing import Any

import pytest
from support.pipeline import DAY, NOW, PipelineRunner, Registry
from support.smtpd import Smtpd

from token_pipelines import growth
from token_pipelines.errors import FuseTripped
from token_pipelines.planning import explain_open_trip


@pytest.fixture(autouse=True)
def small_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two notices instead of 500, so that a test needs few people."""
    monkeypatch.setattr(growth, "FLOOR", 2)


class House:
    """A registry in which a given number of people become due on each day."""

    def __init__(self, folder: Path, registry: Registry, port: int) -> None:
        self._registry = registry
        self._where = (folder, registry.url, port)
        self._people = 0

    def day(self, number: int, people: int = 0, *, approve: bool = False, **delivery: Any) -> int:  # noqa: ANN401 -- YAML
        """Run a day on which this many more people are due; how many were told."""
        now = NOW + number * DAY
        for _ in range(people):
            self._people += 1
            user = self._registry.user(f"user{self._people}", email=f"user{self._people}@example.org")
            self._registry.token(user, expires_at=now + 20 * DAY)
        return self.runner(**delivery).run(now, approve=approve).sent

    def runner(self, **delivery: Any) -> PipelineRunner:  # noqa: ANN401 -- YAML
        return PipelineRunner(*self._where, delivery=delivery)


@pytest.fixture
def house(tmp_path: Path, registry: Registry) -> Any:  # noqa: ANN401 -- a generator
    with Smtpd() as relay:
        yield House(tmp_path, registry, relay.port)


def test_first_two_days_of_a_ledger_may_be_large(house: House) -> None:
    assert house.day(0, 1) == 1
    assert house.day(1, 15) == 15


def test_third_day_far_over_the_usual_trips_and_says_which_limit(house: House) -> None:
    house.day(0, 1)
    house.day(1, 1)
    with pytest.raises(FuseTripped) as tripped:
        house.day(2, 11)
    assert str(tripped.value) == (
        "The volume fuse has tripped: 11 notices were new on 2026-11-22, over the 10 that delivery.max_growth allows "
        "(10 times the 1 of a usual day, and at least 2); nothing was planned and nothing is sent. Look at the day in "
        "the UI, then approve it (token-pipelines run --approve-volume), raise delivery.max_growth to at least 11 or "
        "set it to null, or fix the source."
    )


def test_floor_and_a_number_at_the_limit_do_not_trip(house: House) -> None:
    house.day(0)
    house.day(1)
    assert house.day(2, 2) == 2
    house.day(3, 1)
    house.day(4, 1)
    house.day(5, 1)
    assert house.day(6, 10) == 10


def test_trip_holds_later_days_until_it_is_approved(house: House) -> None:
    house.day(0, 1)
    house.day(1, 1)
    for number in (2, 3):
        with pytest.raises(FuseTripped, match="11 notices were new on 2026-11-22"):
            house.day(number, 11 if number == 2 else 0)
    assert house.day(3, approve=True) == 11
    assert house.day(3, 1) == 1, "what was approved is not counted again on the same day"
    assert house.day(4, 1) == 1


@pytest.mark.parametrize("max_growth", [11, None])
def test_trip_ends_with_a_limit_that_allows_it(house: House, max_growth: float | None) -> None:
    house.day(0, 1)
    house.day(1, 1)
    with pytest.raises(FuseTripped):
        house.day(2, 11)
    assert house.day(2, max_growth=max_growth) == 11


def test_plans_of_one_day_are_counted_together(house: House) -> None:
    house.day(0, 1)
    house.day(1, 1)
    assert house.day(2, 6) == 6
    with pytest.raises(FuseTripped, match="12 notices were new"):
        house.day(2, 6)


def test_both_limits_are_in_force(house: House) -> None:
    house.day(0, 1)
    house.day(1, 1)
    with pytest.raises(FuseTripped, match=r"over delivery\.max_notices of 5"):
        house.day(2, 11, max_notices=5)
    with pytest.raises(FuseTripped, match=r"that delivery\.max_growth allows"):
        house.day(2)


def test_dry_run_does_not_trip_and_sees_an_open_trip(house: House) -> None:
    house.day(0, 1)
    house.day(1, 1)
    house.day(2, 11, mode="dry_run")
    parts = house.runner().parts(NOW + 2 * DAY)
    assert explain_open_trip(parts) is None
    with pytest.raises(FuseTripped):
        house.day(2)
    assert "11 notices were new" in str(explain_open_trip(parts))
    parts.ledger.close()
    with pytest.raises(FuseTripped):
        house.day(2, mode="dry_run")
