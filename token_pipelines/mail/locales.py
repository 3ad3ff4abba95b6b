"""What a user's profile calls a locale, made sense of. A name that nobody knows is no error: the email is then as ever.

Knows Babel's data, and nothing of templates.
"""

import re
from functools import lru_cache
from typing import Final

from babel import Locale, UnknownLocaleError

_NAME: Final = re.compile(r"([A-Za-z]{2,3}(?:[_-][A-Za-z0-9]{2,8}){0,3})(?:\.[A-Za-z0-9-]*)?(?:@\w*)?")


@lru_cache(maxsize=1024)
def candidates(name: str | None) -> tuple[str, ...]:
    """``de-AT.UTF-8`` as ``("de_at", "de")``: what to look for, the nearest first."""
    match = _NAME.fullmatch(name.strip()) if name else None
    if match is None:
        return ()
    parts = match[1].lower().replace("-", "_").split("_")
    return tuple("_".join(parts[:length]) for length in range(len(parts), 0, -1))


def exact(name: str) -> Locale | None:
    """The locale of just that name, or None."""
    named = candidates(name)
    try:
        return Locale.parse(named[0]) if named else None
    except (ValueError, UnknownLocaleError):
        return None


@lru_cache(maxsize=1024)
def known(name: str | None) -> Locale | None:
    """The locale of that name, or the nearest one that is known; None when none is."""
    return next((found for candidate in candidates(name) if (found := exact(candidate))), None)
