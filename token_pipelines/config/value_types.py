"""How single values are written in the config: durations, rates, shares, addresses, dates, times, zones, single lines.

Each is a type for a field of a section. A value that is refused gets a message that says how to write it.
"""

import re
from datetime import date, datetime, time, timedelta
from fractions import Fraction
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import AfterValidator, BeforeValidator, Field

from token_pipelines.addresses import valid_address
from token_pipelines.errors import shown
from token_pipelines.instants import parse_day

LONGEST = timedelta(days=36_525)  # a century: longer ones are typing mistakes, and overflow the calendar

_DURATION_PART = re.compile(r"(\d+)\s*([wdhms])")
_UNITS = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_NUMBER = re.compile(r"\d+(\.\d+)?")
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*([smh])")
_SHARE = re.compile(r"(\d{1,2}(?:\.\d{1,2})?)\s*%")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def _duration(value: object) -> object:
    if value is None or isinstance(value, timedelta):
        return value
    parts = _DURATION_PART.findall(str(value))
    if not parts or _DURATION_PART.sub("", str(value)).strip():  # a number without a unit could be days or seconds
        msg = f"{shown(value)} is not a duration; write it like 30d, 2h or 1d12h"
        raise ValueError(msg)
    try:
        total = sum((timedelta(**{_UNITS[unit]: int(number)}) for number, unit in parts), timedelta())
    except OverflowError:
        total = timedelta.max
    if total > LONGEST:
        msg = f"{shown(value)} is longer than a century; write it like 30d, 2h or 1d12h"
        raise ValueError(msg)
    return total


def _timeout(value: object) -> object:
    number = _NUMBER.fullmatch(str(value))
    return _duration(value) if number is None else timedelta(seconds=min(float(number[0]), LONGEST.total_seconds()))


def _rate(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _RATE.fullmatch(value.strip())
    if match is None or float(match[1]) == 0:
        msg = f"{shown(value)} is not a rate; write it like 50/s or 600/m, or null for no limit"
        raise ValueError(msg)
    return float(match[1]) / _SECONDS[match[2]]


def _share(value: object) -> object:
    match = _SHARE.fullmatch(str(value).strip())
    if match is None or not Fraction(match[1]):  # a bare 0.1 could be a tenth or a tenth of a percent
        msg = f"{shown(value)} is not a share of a lifetime; write it like 10% or 12.5%, above 0% and below 100%"
        raise ValueError(msg)
    return Fraction(match[1]) / 100


def _one_line(value: str) -> str:
    if any(ord(character) < ord(" ") or ord(character) == 0x7F for character in value):  # noqa: PLR2004 DEL
        msg = "must not contain line breaks or control characters"
        raise ValueError(msg)
    return value


def _host(value: str) -> str:
    if not value or re.search(r"[/@?#\s]", value):  # a URL, in which there may be a password
        msg = "must be the bare name of a host, like mail.example.org; a user goes into smtp.username"
        raise ValueError(msg)
    return value


def _address(value: str) -> str:
    if not valid_address(value):
        msg = "must be one plain address, like ops@example.org"
        raise ValueError(msg)
    return value


def _some_time(value: timedelta) -> timedelta:
    if not value:
        msg = "must be longer than 0s"
        raise ValueError(msg)
    return value


def _date(value: object) -> object:
    if isinstance(value, str):
        return parse_day(value, like="2026-01-31")
    if not isinstance(value, date) or isinstance(value, datetime):  # a number could be seconds since 1970
        msg = f"{shown(value)} is not a day; write it like 2026-01-31"
        raise ValueError(msg)  # noqa: TRY004 -- pydantic collects ValueErrors
    return value


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        if not available_timezones():
            msg = "cannot be looked up, since this machine has no time zones; install them (pip install tzdata)"
            raise ValueError(msg) from None
        msg = f"{shown(name)} is not a time zone; write it like UTC or Europe/Berlin"
        raise ValueError(msg) from None
    return name


def _time_of_day(value: object) -> object:
    if not isinstance(value, str) or re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value) is None:
        msg = f'{shown(value)} is not a time of day; write it in quotes, like "09:00"'
        raise ValueError(msg)
    return time.fromisoformat(value)


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Timeout = Annotated[timedelta, BeforeValidator(_timeout), AfterValidator(_some_time)]
"""A duration longer than 0s; a bare number means seconds."""

Rate = Annotated[float, BeforeValidator(_rate), Field(gt=0, allow_inf_nan=False)]
Share = Annotated[Fraction, BeforeValidator(_share)]
"""More than 0 % and less than 100 %, to a hundredth of a percent."""

Address = Annotated[str, AfterValidator(_address)]
"""One plain address, without a display name."""

Date = Annotated[date, BeforeValidator(_date)]
OneLine = Annotated[str, AfterValidator(_one_line)]
Host = Annotated[OneLine, AfterValidator(_host)]
"""A host's name or address, and no URL."""

TimeOfDay = Annotated[time, BeforeValidator(_time_of_day)]
Zone = Annotated[str, AfterValidator(_zone)]
