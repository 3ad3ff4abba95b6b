"""Reads messages from files, mboxes and maildirs: one at a time, and of each message only its first part.

A message is known by a digest of its beginning, so of a file that was seen before, no more is read.

Changes nothing: takes no lock, sets no flag, moves no file from ``new`` to ``cur``. Deleting old mail is up to the
operator. The standard library's ``mailbox`` is not used: it splits an mbox at every line that begins with ``From``, so
also inside a report, it blocks on a named pipe in a maildir, and it cannot read standard input.
"""

import hashlib
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from token_pipelines.printable import printable

STANDARD_INPUT: Final = Path("-")

_MBOX: Final = b"From "
_LINE_AT_MOST: Final = 1 << 16

DIGEST_OF: Final = 8 << 10
"""Octets at the beginning of a message of which the digest is made. Received and Message-ID stand there."""

_DIGEST_OCTETS: Final = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredMessage:
    """A message and the name of its file. ``content`` is None if it was seen before, or if ``error`` says why."""

    name: str
    content: bytes | None
    error: str = ""
    digest: bytes = field(default=b"", compare=False)


def is_maildir(path: Path) -> bool:
    """Whether this folder is a maildir."""
    return (path / "cur").is_dir() and (path / "new").is_dir()


def read_messages(path: Path, *, at_most: int, seen: Collection[bytes] = frozenset()) -> Iterator[StoredMessage]:
    """Give every message in a file, an mbox or a maildir, or on standard input when the path is ``-``.

    Args:
        path: what to read.
        at_most: how many octets of each message to read; the rest is skipped.
        seen: digests of messages that need not be read again.
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
            yield from _from_file(file, at_most, seen)
        except OSError as error:
            yield _unread(file, error)


def _unread(path: Path, error: OSError) -> StoredMessage:
    return StoredMessage(name=printable(path), content=None, error=error.strerror or type(error).__name__)


def _from_file(path: Path, at_most: int, seen: Collection[bytes]) -> Iterator[StoredMessage]:
    if path == STANDARD_INPUT:
        yield from _split("standard input", sys.stdin.buffer, at_most, seen)
        return
    with path.open("rb") as file:
        yield from _split(printable(path), file, at_most, seen)


def _split(name: str, file: BinaryIO, at_most: int, seen: Collection[bytes]) -> Iterator[StoredMessage]:
    """Split an mbox where a From line follows an empty line. Any other file is one message."""
    first = file.readline(_LINE_AT_MOST)
    if not first.startswith(_MBOX):
        head = first + file.read(max(0, min(DIGEST_OF, at_most) - len(first)))
        digest = _digest(head)
        content = None if digest in seen else head + file.read(max(0, at_most - len(head)))
        yield StoredMessage(name=name, content=content, digest=digest)
        return
    number = 1
    text = bytearray()
    after_blank = False
    while line := file.readline(_LINE_AT_MOST):
        if after_blank and line.startswith(_MBOX):
            yield _of_mbox(name, number, bytes(text), seen)
            number += 1
            text.clear()
        elif len(text) < at_most:
            text += line
        after_blank = line in {b"\n", b"\r\n"}
    yield _of_mbox(name, number, bytes(text), seen)


def _of_mbox(name: str, number: int, content: bytes, seen: Collection[bytes]) -> StoredMessage:
    digest = _digest(content)
    kept = None if digest in seen else content
    return StoredMessage(name=f"{name} (message {number})", content=kept, digest=digest)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content[:DIGEST_OF], digest_size=_DIGEST_OCTETS).digest()
