"""Reads messages out of files, mboxes and maildirs, one at a time and never more of one than is asked for.

Changes nothing: no lock, no flag, no move from ``new`` to ``cur``. Who delivers the mail also tidies it up.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

STANDARD_INPUT: Final = Path("-")

_MBOX: Final = b"From "
_LINE_AT_MOST: Final = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A message and the name of its file; or what kept it from being read, with ``content`` None."""

    name: str
    content: bytes | None
    trouble: str = ""


def is_maildir(path: Path) -> bool:
    """Whether this folder is a maildir."""
    return (path / "cur").is_dir() and (path / "new").is_dir()


def read_messages(path: Path, *, at_most: int) -> Iterator[Stored]:
    """Every message in a file, an mbox or a maildir, or on standard input for ``-``.

    Args:
        path: what to read.
        at_most: octets of each message; the rest is passed over.
    """
    files = [path]
    if path != STANDARD_INPUT and path.is_dir():
        try:
            files = [file for part in ("new", "cur") for file in sorted((path / part).iterdir()) if file.is_file()]
        except OSError as error:
            yield _unread(path, error)
            return
    for file in files:
        try:
            yield from _from_file(file, at_most)
        except OSError as error:
            yield _unread(file, error)


def _unread(path: Path, error: OSError) -> Stored:
    return Stored(name=printable(path), content=None, trouble=error.strerror or type(error).__name__)


def _from_file(path: Path, at_most: int) -> Iterator[Stored]:
    if path == STANDARD_INPUT:
        yield from _split("standard input", sys.stdin.buffer, at_most)
        return
    with path.open("rb") as file:
        yield from _split(printable(path), file, at_most)


def _split(name: str, file: BinaryIO, at_most: int) -> Iterator[Stored]:
    """The messages of an mbox, which begin with a From line after an empty one; or the one message that this is."""
    first = file.readline(_LINE_AT_MOST)
    if not first.startswith(_MBOX):
        yield Stored(name=name, content=first + file.read(max(0, at_most - len(first))))
        return
    number = 1
    content = bytearray()
    after_blank = False
    while line := file.readline(_LINE_AT_MOST):
        if after_blank and line.startswith(_MBOX):
            yield Stored(name=f"{name} (message {number})", content=bytes(content))
            number += 1
            content.clear()
        elif len(content) < at_most:
            content += line
        after_blank = line in {b"\n", b"\r\n"}
    yield Stored(name=f"{name} (message {number})", content=bytes(content))


def printable(path: Path) -> str:
    """A path as it may be shown: a file's name is anybody's text."""
    return "".join(character if character.isprintable() else "?" for character in str(path))
