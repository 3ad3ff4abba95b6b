"""Instants and days, as a user writes them."""

import zoneinfo
from datetime import UTC, datetime

import pytest
from babel import Locale

from token_pipelines.mail.dates import day, in_utc, instant

LATE = datetime(2026, 11, 30, 23, 5, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        (None, "Monday, 30 November 2026 at 23:05 UTC"),
        ("UTC", "Monday, 30 November 2026 at 23:05 UTC"),
        ("Europe/Berlin", "Tuesday, 1 December 2026 at 00:05 (Europe/Berlin)"),
        ("Asia/Kolkata", "Tuesday, 1 December 2026 at 04:35 (Asia/Kolkata)"),
        ("Mars/Olympus", "Monday, 30 November 2026 at 23:05 UTC"),
        ("../../etc/passwd", "Monday, 30 November 2026 at 23:05 UTC"),
        ("", "Monday, 30 November 2026 at 23:05 UTC"),
        ("right/Europe/Berlin", "Monday, 30 November 2026 at 23:05 UTC"),  # 27 seconds out
        ("posix/Europe/Berlin", "Monday, 30 November 2026 at 23:05 UTC"),
        ("posixrules", "Monday, 30 November 2026 at 23:05 UTC"),
        ("localtime", "Monday, 30 November 2026 at 23:05 UTC"),  # the server's, whatever that is
        ("Factory", "Monday, 30 November 2026 at 23:05 UTC"),
        ("Europe/Berlin\0", "Monday, 30 November 2026 at 23:05 UTC"),
        ("\ud800", "Monday, 30 November 2026 at 23:05 UTC"),
    ],
)
def test_instant_in_zone(zone: str | None, words: str) -> None:
    """The user's zone when we know it, named; UTC otherwise."""
    assert instant(LATE, zone) == words


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        (None, ""),
        ("UTC", ""),
        ("Mars/Olympus", ""),
        ("Europe/Berlin", "30 November 2026 at 23:05 UTC"),
        ("Europe/London", "30 November 2026 at 23:05 UTC"),
    ],
)
def test_beside_another_zone(zone: str | None, words: str) -> None:
    """UTC, with its own date, for every instant that is shown in another zone."""
    assert in_utc(LATE, zone) == words


@pytest.mark.parametrize(
    ("locale", "full", "utc", "plain"),
    [
        (
            "de_AT",
            "Dienstag, 1. Dezember 2026, 00:05 (Europe/Berlin)",
            "30. November 2026, 23:05 UTC",
            "1. Dezember 2026",
        ),
        (
            "en_US",
            "Tuesday, December 1, 2026, 12:05 AM (Europe/Berlin)",
            "November 30, 2026, 11:05 PM UTC",
            "December 1, 2026",
        ),
        ("ja", "2026年12月1日火曜日 0:05 (Europe/Berlin)", "2026年11月30日 23:05 UTC", "2026年12月1日"),
    ],
)
def test_dates_in_the_manner_of_a_locale(locale: str, full: str, utc: str, plain: str) -> None:
    manner = Locale.parse(locale)
    assert instant(LATE, "Europe/Berlin", manner) == full
    assert in_utc(LATE, "Europe/Berlin", manner) == utc
    assert day(LATE, "Europe/Berlin", manner) == plain


def test_instant_in_every_zone_there_is() -> None:
    """Of the database, and none of what else lies in its folder."""
    for zone in zoneinfo.available_timezones() - {"UTC", "Factory", "localtime"}:
        assert instant(LATE, zone).endswith(f" ({zone})")


def test_day_at_the_end_of_the_calendar() -> None:
    """The last day there is has no tomorrow in another zone."""
    assert day(datetime(9999, 12, 31, 23, tzinfo=UTC), "Asia/Tokyo") == "31 December 9999"
