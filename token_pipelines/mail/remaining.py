"""Formats the remaining time in words. All rounding happens here, and downwards: never more time than there is."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Literal

from babel import Locale
from babel.dates import format_timedelta
from babel.lists import format_list

_Unit = Literal["day", "hour", "minute", "second"]

_SIZES: Final[dict[_Unit, timedelta]] = {
    "day": timedelta(days=1),
    "hour": timedelta(hours=1),
    "minute": timedelta(minutes=1),
    "second": timedelta(seconds=1),
}
_NOTHING: Final = timedelta()
_SECONDS_AN_HOUR: Final = 3600
_ROUGH_FROM_DAYS: Final = 2  # with less left, "1 day" could hide almost half of it
_NEVER: Final = 1e9  # a threshold that no count reaches: Babel then keeps the unit, and does not round to weeks


def in_words(moment: datetime, now: datetime, language: Locale | None = None) -> str:
    """Format the time until ``moment``: ``6 days and 23 hours``, ``2 hours ago``. Both instants are aware.

    Without a language in English.
    """
    return _words(moment, now, language, rough=False)


def roughly(moment: datetime, now: datetime, language: Locale | None = None) -> str:
    """Format the same for a subject line: from two days on, whole days only."""
    return _words(moment, now, language, rough=True)


def _words(moment: datetime, now: datetime, language: Locale | None, *, rough: bool) -> str:
    # In UTC: Python subtracts two instants of one zone by the wall clock, which is an hour off over a clock change.
    left = moment.astimezone(UTC) - now.astimezone(UTC)
    past = left <= _NOTHING
    size = abs(left)
    days, hours = size.days, size.seconds // _SECONDS_AN_HOUR
    if rough and days >= _ROUGH_FROM_DAYS:
        hours = 0
    if language is not None and language.language != "en":
        return _ago(size, language) if past else _left(left, days, hours, language)
    return _in_english(days, hours, past=past)


@lru_cache(maxsize=4096)
def _in_english(days: int, hours: int, *, past: bool) -> str:
    counts = ((days, "day"), (hours, "hour"))
    counted = [f"1 {unit}" if number == 1 else f"{number} {unit}s" for number, unit in counts if number]
    words = " and ".join(counted) or "less than an hour"
    return f"{words} ago" if past else words


def _left(left: timedelta, days: int, hours: int, language: Locale) -> str:
    """Format as ``6 Tage und 23 Stunden``; below an hour in minutes, since CLDR has no words for "less than"."""
    both: tuple[tuple[int, _Unit], ...] = ((days, "day"), (hours, "hour"))
    parts = [part for part in both if part[0]]
    return format_list([_one(*part, language) for part in parts or [_largest(left)]], locale=language)


def _ago(passed: timedelta, language: Locale) -> str:
    """Format as ``vor 2 Tagen``. One unit only: many languages cannot put two after one preposition."""
    return _one(*_largest(passed), language, ago=True)


def _largest(span: timedelta) -> tuple[int, _Unit]:
    """The largest unit that fits into the span, and how many of it."""
    for unit, size in _SIZES.items():
        if span >= size:
            return span // size, unit
    return 0, "second"


@lru_cache(maxsize=4096)
def _one(number: int, unit: _Unit, language: Locale, *, ago: bool = False) -> str:
    # For a span of nothing Babel would say "in 0 seconds", although the moment is past.
    span = -max(1, number) * _SIZES[unit] if ago else number * _SIZES[unit]
    return format_timedelta(span, granularity=unit, threshold=_NEVER, add_direction=ago, locale=language)
