"""Formats instants and days in a user's time zone and locale."""

from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime
from functools import cache, lru_cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from babel import Locale
from babel.dates import format_date, format_time, get_datetime_format

_WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS: Final = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)  # not strftime, whose names depend on the process's locale
_NO_ZONES: Final = ("right/", "posix")  # prefixes that some installations list among the zones
_ZONE_AT_MOST: Final = 100
"""A longer name is no zone's. It is not looked up, so that no cache keeps it."""

_NARROW_BLANK: Final = "\u202f"  # CLDR puts it before AM and PM, and many fonts lack it


def instant(moment: datetime, zone: str | None = None, locale: Locale | None = None) -> str:
    """Format as ``Monday, 30 November 2026 at 14:05 UTC``, or in ``zone``, with its name, if that is a time zone."""
    local, name = _localised(moment, zone)
    suffix = "UTC" if name == "UTC" else f"({name})"
    return f"{_minute(local.replace(second=0, microsecond=0, tzinfo=None), locale, with_weekday=True)} {suffix}"


def in_utc(moment: datetime, zone: str | None = None, locale: Locale | None = None) -> str:
    """Format as ``30 November 2026 at 14:05 UTC``; ``""`` when ``instant`` already gives UTC."""
    if _localised(moment, zone)[1] == "UTC":
        return ""
    plain = moment.astimezone(UTC).replace(second=0, microsecond=0, tzinfo=None)
    return f"{_minute(plain, locale, with_weekday=False)} UTC"


def day(moment: datetime, zone: str | None = None, locale: Locale | None = None) -> str:
    """Format as ``1 September 2026``."""
    return _date(_localised(moment, zone)[0].date(), locale)


@lru_cache(maxsize=4096)  # Babel is slow, and many tokens expire at the same minute
def _minute(local: datetime, locale: Locale | None, *, with_weekday: bool) -> str:
    if locale is None:
        weekday = f"{_WEEKDAYS[local.weekday()]}, " if with_weekday else ""
        return f"{weekday}{_date(local.date(), None)} at {local:%H:%M}"
    written = format_date(local, "full" if with_weekday else "long", locale)
    time = format_time(local, "short", locale=locale).replace(_NARROW_BLANK, " ")
    joined = str(get_datetime_format("long", locale)).replace("'", "")  # CLDR quotes words: {1} 'um' {0}
    return joined.replace("{1}", written).replace("{0}", time)


@lru_cache(maxsize=4096)
def _date(local: date, locale: Locale | None) -> str:
    if locale is None:
        return f"{local.day} {_MONTHS[local.month - 1]} {local.year}"
    return format_date(local, "long", locale)


def _localised(moment: datetime, zone: str | None) -> tuple[datetime, str]:
    found = None if zone is None or len(zone) > _ZONE_AT_MOST else _zone(zone)
    try:
        return (moment.astimezone(UTC), "UTC") if found is None else (moment.astimezone(found), found.key)
    except OverflowError:  # the first or the last day of the calendar
        return moment.astimezone(UTC), "UTC"


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo | None:
    """The time zone of that name, or None when it is unknown: the email then uses UTC."""
    return ZoneInfo(name) if name in _known_zones() else None


@cache  # reads a folder of 600 files, which takes up to 60 ms
def _known_zones() -> AbstractSet[str]:
    """The zones of the IANA database, without other files of its folder that ``ZoneInfo`` would also load.

    ``right/…`` counts leap seconds and is 27 s off, ``posix/…`` repeats the zones under another name, ``localtime`` is
    the server's zone, and ``Factory`` means that no zone was set.
    """
    return {name for name in available_timezones() if not name.startswith(_NO_ZONES)} - {"localtime", "Factory"}
