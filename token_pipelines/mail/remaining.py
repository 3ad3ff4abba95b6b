"""Times in words. All rounding of times happens here, once, and downwards: nobody is promised more than there is."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_HOUR: Final = timedelta(hours=1)
_HOURS_A_DAY: Final = 24
_ROUGH_FROM_DAYS: Final = 2  # below, "1 day" would hide almost half of what is left

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
)  # not strftime: its names follow the process's locale


def in_words(moment: datetime, now: datetime) -> str:
    """``6 days and 23 hours`` until ``moment``, or ``2 hours ago``; both instants aware."""
    return _words(moment, now, rough=False)


def roughly(moment: datetime, now: datetime) -> str:
    """The same for a subject line: whole days only, from two days on."""
    return _words(moment, now, rough=True)


def instant(moment: datetime, zone: str | None = None) -> str:
    """``Monday, 30 November 2026 at 14:05 UTC``; in ``zone`` where that is a time zone, which is then named."""
    local, name = _localised(moment, zone)
    offset = local.strftime("%z")
    suffix = "UTC" if name == "UTC" else f"({name}, UTC{offset[:3]}:{offset[3:5]})"
    return f"{_WEEKDAYS[local.weekday()]}, {_date(local)} at {local:%H:%M} {suffix}"


def day(moment: datetime, zone: str | None = None) -> str:
    """``1 September 2026``."""
    return _date(_localised(moment, zone)[0])


def _words(moment: datetime, now: datetime, *, rough: bool) -> str:
    # Through UTC: two instants of one zone would be subtracted by the wall clock, an hour out over a change of clocks.
    left = moment.astimezone(UTC) - now.astimezone(UTC)
    past = left <= timedelta()
    hours_in_all = abs(left) // _HOUR
    days, hours = divmod(hours_in_all, _HOURS_A_DAY)
    if hours_in_all == 0:
        words = "less than an hour"
    elif days == 0:
        words = _counted(hours, "hour")
    elif hours == 0 or (rough and days >= _ROUGH_FROM_DAYS):
        words = _counted(days, "day")
    else:
        words = f"{_counted(days, 'day')} and {_counted(hours, 'hour')}"
    return f"{words} ago" if past else words


def _counted(number: int, unit: str) -> str:
    return f"1 {unit}" if number == 1 else f"{number} {unit}s"


def _date(local: datetime) -> str:
    return f"{local.day} {_MONTHS[local.month - 1]} {local.year}"


def _localised(moment: datetime, zone: str | None) -> tuple[datetime, str]:
    found = None if zone is None else _zone(zone)
    try:
        return (moment.astimezone(UTC), "UTC") if found is None else (moment.astimezone(found), found.key)
    except OverflowError:  # the first or the last day of the calendar
        return moment.astimezone(UTC), "UTC"


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo | None:
    """None when a user's profile names no zone that we know: the email then speaks UTC."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
