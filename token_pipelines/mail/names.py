"""User-typed text made safe to show. Escaping for HTML is the template's business, not ours."""

import re
import unicodedata
from typing import Final

NO_NAME: Final = "(no name)"
NAME_LIMIT: Final = 80  # a line of the text part
ELLIPSIS: Final = "…"

_READ_AT_MOST: Final = 4096  # normalising is quadratic in a run of combining marks; no honest name is longer
_DROPPED: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_BLANK: Final = frozenset({"Zs", "Zl", "Zp"})
_LOOKS_BLANK: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # letters and symbols that show as nothing
_MARKS_IN_A_ROW: Final = 4  # more than any script stacks; beyond it text climbs over its neighbours' lines

_WORD_JOINER: Final = "\u2060"
_LINK_LIKE: Final = re.compile(r"://|//|@|(?<=[^\s.])\.(?=[^\W\d_]{2})")


def clean(text: str | None, limit: int = NAME_LIMIT, *, stand_in: str = NO_NAME) -> str:
    """``text`` on one line, at most ``limit`` characters and nothing invisible; ``stand_in`` when nothing is left."""
    source = unicodedata.normalize("NFC", (text or "")[:_READ_AT_MOST])
    kept: list[str] = []
    marks = 0
    for character in source:
        category = unicodedata.category(character)
        marks = marks + 1 if category in {"Mn", "Me"} else 0
        if category in _BLANK or character.isspace() or character in _LOOKS_BLANK:
            kept.append(" ")
        elif category not in _DROPPED and marks <= _MARKS_IN_A_ROW:
            kept.append(character)
    # Again: what was dropped may have stood between a letter and its accent.
    line = " ".join(unicodedata.normalize("NFC", "".join(kept)).split())
    if len(line) > limit:
        line = line[: limit - len(ELLIPSIS)].rstrip() + ELLIPSIS
    return line or stand_in


def unlinked(text: str) -> str:
    """``text`` with invisible joiners where a mail program would make a link of it.

    A token's name may be typed by one member of a team and read by another: "https://evil.example" must not
    become clickable in a mail of ours.
    """
    return _LINK_LIKE.sub(lambda match: _WORD_JOINER + match[0] + _WORD_JOINER, text)
