"""User-typed text made safe to show. Escaping for HTML is the template's business, not ours."""

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

NO_NAME: Final = "(no name)"
NAME_LIMIT: Final = 80  # a line of the text part
ELLIPSIS: Final = "…"

_READ_AT_MOST: Final = 4096  # normalising is quadratic in a run of combining marks; no honest name is longer
_DROPPED: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_BLANK: Final = frozenset({"Zs", "Zl", "Zp"})
_LOOKS_BLANK: Final = frozenset(  # letters and symbols that show as nothing
    "\u115f\u1160\u2800\u3164\uffa0\U00013441\U00013442\U0001d159"
)

_MARKS: Final = frozenset({"Mn", "Mc", "Me"})
_EMOJI_OR_TEXT: Final = frozenset("\ufe0e\ufe0f")  # chooses how the sign before it looks
_INVISIBLE_MARKS: Final = frozenset(  # Default_Ignorable_Code_Point, as far as it is marks
    "\u034f\u17b4\u17b5\u180b\u180c\u180d\u180f" + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
_JOINS_LIKE_A_MARK: Final = frozenset("\u0e33\u0eb3\uff9e\uff9f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")
_MARKS_IN_A_ROW: Final = 8  # Burmese and Tibetan have seven
_PILED_UP: Final = 4  # of them above or below: more than any script stacks; beyond it text climbs over other lines
_POINTS_A_CHARACTER: Final = 2  # on an average: few honest names have more, and 50 dishonest ones fill an email
_VIRAMA: Final = 9  # the combining class of signs that join two letters to one

_WORD_JOINER: Final = "\u2060"
_LINK_LIKE: Final = re.compile(
    r"://|//|@"
    # The dot of a domain, however it is written. After a letter there may be a mark: India's begins \u092d\u093e.
    r"|(?<=[^\s.])[.\u3002\uff0e\uff61](?=[\ufe0e\ufe0f]?[^\W\d_](?:[^\W\d_]|[^\x00-\x7f]))"
    r"|(?<=\d)\.(?=\d+\.\d+\.\d)"  # and of an IP address; not of a version
    r"|(?i:\b(?:mailto|tel|sms|skype):)"
)
_LINK_SIGN: Final = re.compile("[:/@.\u3002\uff0e\uff61]")
"""Each of the above holds one of these."""


def clean(text: str | None, limit: int = NAME_LIMIT, *, stand_in: str = NO_NAME) -> str:
    """``text`` on one line, nothing invisible in it, and at most ``limit`` characters as a reader counts them.

    ``stand_in`` when nothing is left that a mark could stand on. Such a character may be a letter with up to eight
    marks, or a flag; in code points, the whole is at most twice as long.
    """
    text = text or ""
    line = " ".join(text[:_READ_AT_MOST].split())
    if line.isascii() and line.isprintable():  # most are
        return (line if len(line) <= limit else _cut(list(line), limit)) or stand_in
    # In NFC again: what was dropped may have stood between a letter and its accent.
    line = " ".join(unicodedata.normalize("NFC", _visible(text[:_READ_AT_MOST])).split())
    if len(line) > limit:
        characters = list(_as_read(line))
        if len(characters) > limit or len(line) > limit * _POINTS_A_CHARACTER:
            line = _cut(characters, limit)
    return line or stand_in


def _visible(text: str) -> str:
    """What of it shows, in NFC; blanks as they come. Nothing when there is no character that a mark could stand on."""
    kept: list[str] = []
    marks = piled_up = 0
    visible = bare = False  # whether there is a character to see; and whether the last one has no mark yet
    for character in unicodedata.normalize("NFC", text):
        category = unicodedata.category(character)
        if category in _BLANK or character.isspace() or character in _LOOKS_BLANK:
            kept.append(" ")
            marks = piled_up = 0
            bare = False
        elif category in _MARKS:
            if character in _INVISIBLE_MARKS and not (bare and character in _EMOJI_OR_TEXT):
                continue
            bare = False
            marks += 1
            piled_up += category == "Me" or unicodedata.combining(character) > 0
            if marks <= _MARKS_IN_A_ROW and piled_up <= _PILED_UP:
                kept.append(character)
        elif category not in _DROPPED:
            kept.append(character)
            marks = piled_up = 0
            visible = bare = True
    return "".join(kept) if visible else ""


def _cut(characters: list[str], limit: int) -> str:
    kept: list[str] = []
    room = limit * _POINTS_A_CHARACTER - len(ELLIPSIS)
    for character in characters[: limit - len(ELLIPSIS)]:
        room -= len(character)
        if room < 0:
            break
        kept.append(character)
    while kept and unicodedata.combining(kept[-1][-1]) == _VIRAMA:  # it joins two letters, and one of them is gone
        kept.pop()
    return "".join(kept).rstrip() + ELLIPSIS


def _as_read(line: str) -> Iterator[str]:
    """The characters that a reader counts: grapheme clusters (UAX 29) of a line in which nothing is invisible."""
    start = flags = 0
    for end, character in enumerate(line):
        joined = (
            unicodedata.category(character) in _MARKS
            or character in _JOINS_LIKE_A_MARK
            or (_half_of_a_flag(character) and flags % 2 == 1)
            or (end > 0 and _same_syllable(line[end - 1], character))
        )
        flags = flags + 1 if _half_of_a_flag(character) else 0
        if end > start and (not joined or end - start > _MARKS_IN_A_ROW):
            yield line[start:end]
            start = end
    if line:
        yield line[start:]


def _half_of_a_flag(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _same_syllable(before: str, character: str) -> bool:
    """Korean letters that NFC leaves apart, as archaic ones are: an initial and what follows it, a vowel, a final."""
    if _initial(before) and (_initial(character) or "\uac00" <= character <= "\ud7a3"):
        return True
    later = "\u1160" <= character <= "\u11ff" or "\ud7b0" <= character <= "\ud7fb"
    return later and (_initial(before) or "\u1160" <= before <= "\u11ff" or "\uac00" <= before <= "\ud7fb")


def _initial(character: str) -> bool:
    return "\u1100" <= character <= "\u115f" or "\ua960" <= character <= "\ua97c"


def unlinked(text: str) -> str:
    """``text`` with invisible joiners where a mail program would make a link of it.

    A token's name may be typed by one member of a team and read by another: "https://evil.example" must not
    become clickable in a mail of ours.
    """
    if _LINK_SIGN.search(text) is None:  # most names, at a tenth of the time
        return text
    return _LINK_LIKE.sub(lambda match: _WORD_JOINER + match[0] + _WORD_JOINER, text)
