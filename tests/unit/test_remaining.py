"""Times in words, one second on either side of each boundary."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from token_pipelines.mail.remaining import day, in_words, instant, roughly

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (SECOND, "less than an hour"),
        (HOUR - SECOND, "less than an hour"),
        (HOUR, "1 hour"),
        (2 * HOUR - SECOND, "1 hour"),
        (2 * HOUR, "2 hours"),
        (DAY - SECOND, "23 hours"),
        (DAY, "1 day"),
        (DAY + HOUR - SECOND, "1 day"),
        (DAY + HOUR, "1 day and 1 hour"),
        (2 * DAY - SECOND, "1 day and 23 hours"),
        (2 * DAY, "2 days"),
        (7 * DAY - SECOND, "6 days and 23 hours"),
        (7 * DAY, "7 days"),
        (7 * DAY + SECOND, "7 days"),
        (30 * DAY + 2 * HOUR, "30 days and 2 hours"),
        (timedelta(), "less than an hour ago"),
        (-SECOND, "less than an hour ago"),
        (-HOUR + SECOND, "less than an hour ago"),
        (-HOUR, "1 hour ago"),
        (-2 * HOUR - SECOND, "2 hours ago"),
        (-DAY, "1 day ago"),
        (-DAY - 5 * HOUR, "1 day and 5 hours ago"),
    ],
)
def test_in_words_at_boundary(left: timedelta, words: str) -> None:
    """Rounded down, in both directions."""
    assert in_words(NOW + left, NOW) == words


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (23 * HOUR, "23 hours"),
        (DAY + 23 * HOUR, "1 day and 23 hours"),
        (2 * DAY - SECOND, "1 day and 23 hours"),
        (2 * DAY + 5 * HOUR, "2 days"),
        (7 * DAY - SECOND, "6 days"),
        (-3 * DAY - HOUR, "3 days ago"),
    ],
)
def test_roughly_at_boundary(left: timedelta, words: str) -> None:
    """Whole days from two days on."""
    assert roughly(NOW + left, NOW) == words


@given(st.timedeltas(timedelta(microseconds=1), timedelta(days=400)))
def test_in_words_never_overstates(left: timedelta) -> None:
    """What the words promise is there, and less than an hour more."""
    words = in_words(NOW + left, NOW).replace("less than an hour", "0 hours").split()
    said = {words[i + 1].rstrip("s"): int(words[i]) for i in range(0, len(words), 3)}
    promised = timedelta(days=said.get("day", 0), hours=said.get("hour", 0))
    assert promised <= left < promised + HOUR


def test_in_words_over_a_change_of_clocks() -> None:
    """Instants of one zone are subtracted as instants, not by the wall clock."""
    berlin = ZoneInfo("Europe/Berlin")
    before, after = datetime(2026, 10, 25, 1, tzinfo=berlin), datetime(2026, 10, 25, 4, tzinfo=berlin)
    assert in_words(after, before) == "4 hours"


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        (None, "Monday, 30 November 2026 at 23:05 UTC"),
        ("UTC", "Monday, 30 November 2026 at 23:05 UTC"),
        ("Europe/Berlin", "Tuesday, 1 December 2026 at 00:05 (Europe/Berlin, UTC+01:00)"),
        ("Asia/Kolkata", "Tuesday, 1 December 2026 at 04:35 (Asia/Kolkata, UTC+05:30)"),
        ("Mars/Olympus", "Monday, 30 November 2026 at 23:05 UTC"),
        ("../../etc/passwd", "Monday, 30 November 2026 at 23:05 UTC"),
        ("", "Monday, 30 November 2026 at 23:05 UTC"),
    ],
)
def test_instant_in_zone(zone: str | None, words: str) -> None:
    """The user's zone when we know it, named; UTC otherwise."""
    assert instant(datetime(2026, 11, 30, 23, 5, 59, tzinfo=UTC), zone) == words


def test_day_at_the_end_of_the_calendar() -> None:
    """The last day there is has no tomorrow in another zone."""
    assert day(datetime(9999, 12, 31, 23, tzinfo=UTC), "Asia/Tokyo") == "31 December 9999"
