"""The schedule in the config: when a day's run is, what day it is, how far it looks ahead."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from token_pipelines.config import Schedule


def schedule(at: str = "09:00", timezone: str = "UTC", grace: str = "2h") -> Schedule:
    return Schedule.model_validate({"at": at, "timezone": timezone, "grace": grace, "start_date": "2026-01-01"})


@pytest.mark.parametrize(
    ("at", "timezone", "day", "instant"),
    [
        ("09:00", "UTC", date(2026, 11, 20), datetime(2026, 11, 20, 9, tzinfo=UTC)),
        ("09:00", "Europe/Berlin", date(2026, 7, 1), datetime(2026, 7, 1, 7, tzinfo=UTC)),
        ("00:00", "Pacific/Kiritimati", date(2026, 7, 1), datetime(2026, 6, 30, 10, tzinfo=UTC)),
        # 02:30 does not exist: the clock goes from 02:00 to 03:00. The later instant is 03:30 summer time.
        ("02:30", "Europe/Berlin", date(2026, 3, 29), datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),
        ("01:59", "Europe/Berlin", date(2026, 3, 29), datetime(2026, 3, 29, 0, 59, tzinfo=UTC)),
        ("03:00", "Europe/Berlin", date(2026, 3, 29), datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),
        # 02:30 comes twice: the clock goes from 03:00 back to 02:00. The earlier instant is in summer time.
        ("02:30", "Europe/Berlin", date(2026, 10, 25), datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        ("03:00", "Europe/Berlin", date(2026, 10, 25), datetime(2026, 10, 25, 2, 0, tzinfo=UTC)),
    ],
)
def test_run_at(at: str, timezone: str, day: date, instant: datetime) -> None:
    found = schedule(at, timezone).run_at(day)
    assert found == instant
    assert found.tzinfo is UTC


@given(st.dates(date(2026, 1, 1), date(2037, 12, 30)), st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Apia"]))
def test_run_at_is_later_each_day(day: date, timezone: str) -> None:
    plan = schedule("02:30", timezone)
    gap = plan.run_at(day + timedelta(days=1)) - plan.run_at(day)
    assert timedelta(hours=23) <= gap <= timedelta(hours=25)


@pytest.mark.parametrize(
    ("now", "day"),
    [
        (datetime(2026, 6, 30, 21, 59, 59, tzinfo=UTC), date(2026, 6, 30)),
        (datetime(2026, 6, 30, 22, tzinfo=UTC), date(2026, 7, 1)),
    ],
)
def test_today_changes_at_midnight_of_the_zone(now: datetime, day: date) -> None:
    assert schedule(timezone="Europe/Berlin").today(now) == day


@pytest.mark.parametrize(
    ("day", "now", "reach"),
    [
        # On time: until the next run, and as late as that one may be.
        (date(2026, 11, 20), datetime(2026, 11, 20, 9, tzinfo=UTC), datetime(2026, 11, 21, 11, tzinfo=UTC)),
        # A missed day looks as far as today does.
        (date(2026, 11, 10), datetime(2026, 11, 20, 15, tzinfo=UTC), datetime(2026, 11, 21, 11, tzinfo=UTC)),
        # A day started before its date, in a rehearsal.
        (date(2026, 11, 22), datetime(2026, 11, 20, 9, tzinfo=UTC), datetime(2026, 11, 23, 11, tzinfo=UTC)),
    ],
)
def test_reach(day: date, now: datetime, reach: datetime) -> None:
    assert schedule().reach(day, now) == reach


def test_reach_over_a_change_of_the_clock() -> None:
    now = datetime(2026, 10, 24, 0, 30, tzinfo=UTC)
    plan = schedule("02:30", "Europe/Berlin", grace="30m")
    assert plan.reach(date(2026, 10, 24), now) == datetime(2026, 10, 25, 1, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "last"),
    [
        (datetime(2026, 11, 20, 8, tzinfo=UTC), datetime(2026, 11, 20, 8, tzinfo=UTC)),
        (datetime(2026, 11, 20, 7, 59, 59, tzinfo=UTC), datetime(2026, 11, 19, 8, tzinfo=UTC)),
        (datetime(2026, 11, 20, 23, 30, tzinfo=UTC), datetime(2026, 11, 20, 8, tzinfo=UTC)),  # the next day in Berlin
        (datetime(2026, 10, 25, 7, 59, tzinfo=UTC), datetime(2026, 10, 24, 7, tzinfo=UTC)),  # the clock has gone back
    ],
)
def test_last_run_at(now: datetime, last: datetime) -> None:
    assert schedule(timezone="Europe/Berlin").last_run_at(now) == last
