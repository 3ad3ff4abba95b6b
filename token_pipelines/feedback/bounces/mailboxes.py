"""Reads messages from files, mboxes and maildirs: one at a time, and of each message only its first part.

Changes nothing: takes no lock, sets no flag, moves no file from ``new`` to ``cur``. Deleting old mail is up to the
operator. The standard library's ``mailbox`` is not used: it splits an mbox at every line that begins with ``From``, so
also inside a report, it blocks on a named pipe in a maildir, and it cannot read standard input.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from token_pipelines.printable import printable

STANDARD_INPUT: Final = Path("-")

_MBOX: Final = b"From "
_LINE_AT_MOST: Final = 1 << 16


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredMessage:
    """A message and the name of its file. When the file cannot be read, ``content`` is None and ``error`` says why."""

    name: str
    content: bytes | None
    error: str = ""


def is_maildir(path: Path) -> bool:
    """Whether this folder is a maildir."""
    return (path / "cur").is_dir() and (path / "new").is_dir()


def read_messages(path: Path, *, at_most: int) -> Iterator[StoredMessage]:
    """Give every message in a file, an mbox or a maildir, or on standard input when the path is ``-``.

    Args:
        path: what to read.
        at_most: how many octets of each message to read; the rest is skipped.
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


def _unread(path: Path, error: OSError) -> StoredMessage:
    return StoredMessage(name=printable(path), content=None, error=error.strerror or type(error).__name__)


def _from_file(path: Path, at_most: int) -> Iterator[StoredMessage]:
    if path == STANDARD_INPUT:
        yield from _split("standard input", sys.stdin.buffer, at_most)
        return
    with path.open("rb") as file:
        yield from _split(printable(path), file, at_most)


def _split(name: str, file: BinaryIO, at_most: int) -> Iterator[StoredMessage]:
    """Split an mbox where a From line follows an empty line. Any other file is one message."""
    first = file.readline(_LINE_AT_MOST)
    if not first.startswith(_MBOX):
        yield StoredMessage(name=name, content=first + file.read(max(0, at_most - len(first))))
        return
    number = 1
    content = bytearray()
    after_blank = False
    while line := file.readline(_LINE_AT_MOST):
        if after_blank and line.startswith(_MBOX):
            yield StoredMessage(name=f"{name} (message {number})", content=bytes(content))
            number += 1
            content.clear()
        elif len(content) < at_most:
            content += line
        after_blank = line in {b"\n", b"\r\n"}
    yield StoredMessage(name=f"{name} (message {number})", content=bytes(content))
