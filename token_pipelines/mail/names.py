"""Makes text that users typed safe to show: token names, scopes, people's names. HTML is escaped by the templates."""

import re
import unicodedata
from typing import Final

import regex

NO_NAME: Final = "(no name)"
NAME_LIMIT: Final = 80  # characters; about one line of the text part
ELLIPSIS: Final = "…"

_READ_AT_MOST: Final = 1024  # six times what is shown; each character read costs time, and anyone may type a name
_DROPPED: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_BLANK: Final = frozenset({"Zs", "Zl", "Zp"})
_LOOKS_BLANK: Final = frozenset(  # letters and symbols without a visible glyph
    "\u115f\u1160\u2800\u3164\uffa0\U00013441\U00013442\U0001d159"
)

_MARKS: Final = frozenset({"Mn", "Mc", "Me"})
_UNSEEN: Final = _DROPPED | _BLANK | _MARKS
_LOOKED_AT: Final = 64  # characters
_EMOJI_OR_TEXT: Final = frozenset("\ufe0e\ufe0f")  # shows the character before it as text, or as an emoji
_INVISIBLE_MARKS: Final = frozenset(  # the marks among Unicode's Default_Ignorable_Code_Point
    "\u034f\u17b4\u17b5\u180b\u180c\u180d\u180f" + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))
)
_LONG_RUN: Final = regex.compile(r"(\p{M}{32})\p{M}+")
"""Normalising takes quadratic time in a run of combining marks, and fewer are shown."""

_MARKS_IN_A_ROW: Final = 8  # Burmese and Tibetan use up to seven
_STACKED_MARKS: Final = 4  # above or below a letter; no script needs more, and more would cover other lines
_POINTS_A_CHARACTER: Final = (
    2  # code points, on average; real names rarely need more, and 50 hostile ones fill an email
)
_VIRAMA: Final = 9  # the combining class of signs that join two letters into one
_GRAPHEME: Final = regex.compile(r"\X")  # UAX 29

_WORD_JOINER: Final = "\u2060"
_LINK_LIKE: Final = re.compile(
    r"://|//|@"
    # The dot of a domain, in any script. Its second character may be a mark: India's top domain begins \u092d\u093e.
    r"|(?<=[^\s.])[.\u3002\uff0e\uff61](?=[\ufe0e\ufe0f]?[^\W\d_](?:[^\W\d_]|[^\x00-\x7f]))"
    r"|(?<=\d)\.(?=\d+\.\d+\.\d)"  # the dot of an IP address, but not of a version number
    r"|(?i:\b(?:mailto|tel|sms|skype):)"
)
_LINK_SIGN: Final = re.compile("[:/@.\u3002\uff0e\uff61]")
"""Every match of ``_LINK_LIKE`` contains one of these."""


def clean(text: str | None, limit: int = NAME_LIMIT, *, stand_in: str = NO_NAME) -> str:
    """Put ``text`` on one line, without invisible characters, cut to ``limit`` characters.

    A character is what a reader counts as one: a letter with up to eight marks, a flag. The result has at most twice
    as many code points. ``stand_in`` replaces a text in which nothing is visible.
    """
    text = text or ""
    line = " ".join(text[:_READ_AT_MOST].split())
    if line.isascii() and line.isprintable():  # most names
        return (line if len(line) <= limit else _cut(list(line), limit)) or stand_in
    # NFC again: a dropped character may have separated a letter from its accent.
    line = " ".join(unicodedata.normalize("NFC", _visible(text[:_READ_AT_MOST])).split())
    if len(line) > limit:
        characters: list[str] = _GRAPHEME.findall(line)
        if len(characters) > limit or len(line) > limit * _POINTS_A_CHARACTER:
            line = _cut(characters, limit)
    return line or stand_in


def shows(text: str) -> bool:
    """Whether something of a text is visible, as far as its beginning tells: cheaper than `clean`."""
    return any(
        character not in _LOOKS_BLANK and unicodedata.category(character) not in _UNSEEN
        for character in text[:_LOOKED_AT]
    )


def _visible(text: str) -> str:
    """Drop what is invisible and normalise to NFC. Gives ``""`` when only blanks and marks are left."""
    kept: list[str] = []
    marks = stacked = 0
    visible = False  # whether there was a character other than a blank or a mark
    bare = False  # whether the last character is such a one, without a mark so far
    for character in unicodedata.normalize("NFC", _LONG_RUN.sub(r"\1", text)):
        category = unicodedata.category(character)
        if category in _BLANK or character.isspace() or character in _LOOKS_BLANK:
            kept.append(" ")
            marks = stacked = 0
            bare = False
        elif category in _MARKS:
            if character in _INVISIBLE_MARKS and not (bare and character in _EMOJI_OR_TEXT):
                continue
            bare = False
            marks += 1
            stacked += category == "Me" or unicodedata.combining(character) > 0
            if marks <= _MARKS_IN_A_ROW and stacked <= _STACKED_MARKS:
                kept.append(character)
        elif category not in _DROPPED:
            kept.append(character)
            marks = stacked = 0
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
    while kept and unicodedata.combining(kept[-1][-1]) == _VIRAMA:  # the letter that it joined is cut off
        kept.pop()
    return "".join(kept).rstrip() + ELLIPSIS


def unlinked(text: str) -> str:
    """Put invisible word joiners into what a mail program would turn into a link.

    One member of a team types a token's name, and others read it: "https://evil.example" must not become clickable in
    an email of ours.
    """
    if _LINK_SIGN.search(text) is None:  # most names; ten times as fast
        return text
    return _LINK_LIKE.sub(lambda match: _WORD_JOINER + match[0] + _WORD_JOINER, text)
