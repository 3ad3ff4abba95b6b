"""Reads the locale in a user's profile. An unknown name is not an error: the email then uses the default templates.

Knows Babel's data, but no templates.
"""

import re
from functools import lru_cache
from typing import Final

from babel import Locale, UnknownLocaleError

_NAME: Final = re.compile(r"([A-Za-z]{2,3}(?:[_-][A-Za-z0-9]{2,8}){0,3})(?:\.[A-Za-z0-9-]*)?(?:@\w*)?")


_NAME_AT_MOST: Final = 100
"""A longer name is no locale's. It is not looked up, so that no cache keeps it."""


def candidates(name: str | None) -> tuple[str, ...]:
    """Give the names to look for, the most specific first: ``("de_at", "de")`` for ``de-AT.UTF-8``."""
    return () if name is None or len(name) > _NAME_AT_MOST else _candidates(name)


@lru_cache(maxsize=1024)
def _candidates(name: str) -> tuple[str, ...]:
    match = _NAME.fullmatch(name.strip()) if name else None
    if match is None:
        return ()
    parts = match[1].lower().replace("-", "_").split("_")
    return tuple("_".join(parts[:length]) for length in range(len(parts), 0, -1))


def exact(name: str) -> Locale | None:
    """Give the locale of exactly that name, or None."""
    named = candidates(name)
    try:
        return Locale.parse(named[0]) if named else None
    except (ValueError, UnknownLocaleError):
        return None


def known(name: str | None) -> Locale | None:
    """Give the locale of that name, or the most specific known one (``de`` for ``de_QQ``), or None."""
    return None if name is None or len(name) > _NAME_AT_MOST else _known(name)


@lru_cache(maxsize=1024)
def _known(name: str) -> Locale | None:
    return next((found for candidate in candidates(name) if (found := exact(candidate))), None)
