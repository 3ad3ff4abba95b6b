"""Reads the text files that an operator writes: the config, queries, templates. They are in UTF-8.

What an editor of another system has saved is told by its encoding: the path and the permissions are not what is wrong.
"""

import codecs
from pathlib import Path
from typing import Final

_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
"""What a file in one of these begins with. UTF-32's first: one of them begins like one of UTF-16's."""

_NUL: Final = b"\0"
_EVERY_OTHER: Final = 3
"""More than a third of the octets is NUL: Western text in UTF-16, or in UTF-32, without a mark at the beginning."""


class UnreadableFileError(Exception):
    """A file that is no text in UTF-8, or cannot be read: what it is, and the cure, without a full stop."""


def read_text(path: Path) -> str:
    """The text of a file, its lines ended by a line feed, without the mark that some editors put before UTF-8.

    Raises:
        UnreadableFileError: "is in UTF-16; save it as UTF-8", to be put after the file's name.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"cannot be read ({type(error).__name__}); check the path and its permissions"
        raise UnreadableFileError(msg) from None
    return decoded(data).replace("\r\n", "\n").replace("\r", "\n")


def decoded(data: bytes) -> str:
    """The text of these octets, without the mark that some editors put before UTF-8.

    Raises:
        UnreadableFileError: as `read_text`.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            msg = f"is in {encoding}; save it as UTF-8"
            raise UnreadableFileError(msg)
    if data.count(_NUL) * _EVERY_OTHER > len(data):
        msg = "is in UTF-16 or UTF-32; save it as UTF-8"
        raise UnreadableFileError(msg)
    if _NUL in data:
        msg = "is no text: it holds a NUL; save it as text in UTF-8"
        raise UnreadableFileError(msg)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        msg = f"is not in UTF-8 at line {line}, but perhaps in Latin-1 or Windows-1252; save it as UTF-8"
        raise UnreadableFileError(msg) from None
