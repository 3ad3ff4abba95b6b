"""Reads instants and days that a person writes, in options and in the config, and knows how far the calendar goes.

A column of a source's rows is converted by `token_pipelines.source.instants`, in one go.
"""

import re
from datetime import UTC, date, datetime
from typing import Final

from token_pipelines.errors import shown

FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 8999
"""A run adds tiers of up to a century, and zones: neither end can lead out of Python's calendar."""

INSTANT_LIKE: Final = "2026-11-20T09:00:00Z"

_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d|\d{8}")
_RANGE: Final = f"the years {FIRST_YEAR} to {LAST_YEAR}"


def parse_instant(text: str) -> datetime:
    """The instant, in UTC.

    Raises:
        ValueError: with one sentence, without its full stop, if the text is no instant with a zone in the calendar.
    """
    cure = f"write it like {INSTANT_LIKE}"
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        msg = f"{shown(text)} is not an instant; {cure}"
        raise ValueError(msg) from None
    if instant.tzinfo is None:
        msg = f"{shown(text)} has no time zone; {cure}"
        raise ValueError(msg)
    try:
        utc = instant.astimezone(UTC)
    except OverflowError:
        utc = None
    if utc is None or not FIRST_YEAR <= utc.year <= LAST_YEAR:
        msg = f"{shown(text)} lies outside {_RANGE}; {cure}"
        raise ValueError(msg)
    return utc


def parse_day(text: str, *, like: str) -> date:
    """The day. ``like`` is an example for the message.

    Raises:
        ValueError: with one sentence, without its full stop, if the text is no day in the calendar.
    """
    cure = f"write it like {like}"
    try:
        day = date.fromisoformat(text)
    except ValueError:
        is_form = _DAY.fullmatch(text) is not None
        msg = (
            f"{shown(text)} is a day that does not exist; {cure}" if is_form else f"{shown(text)} is not a day; {cure}"
        )
        raise ValueError(msg) from None
    if not FIRST_YEAR <= day.year <= LAST_YEAR:
        msg = f"{shown(text)} lies outside {_RANGE}; {cure}"
        raise ValueError(msg)
    return day
