"""Messages out of files, mboxes and maildirs, which are left as they were."""

import io
import os
import sys
from pathlib import Path

import pytest

from token_pipelines.feedback.bounces.mailboxes import (
    DIGEST_OF,
    STANDARD_INPUT,
    StoredMessage,
    is_maildir,
    read_messages,
)
from token_pipelines.printable import printable

ONE = b"Subject: one\n\nHello\n"
TWO = b"Subject: two\n\n>From quoted\n"


def read(path: Path, at_most: int = 1000) -> list[StoredMessage]:
    return list(read_messages(path, at_most=at_most))


def contents(path: Path) -> list[bytes | None]:
    return [stored.content for stored in read(path)]


def test_read_file(tmp_path: Path) -> None:
    file = tmp_path / "one.eml"
    file.write_bytes(ONE)
    assert read(file) == [StoredMessage(name=str(file), content=ONE)]


def test_read_file_at_most(tmp_path: Path) -> None:
    file = tmp_path / "one.eml"
    file.write_bytes(ONE + b"x" * 5000)
    [stored] = read(file)
    assert stored.content == (ONE + b"x" * 5000)[:1000]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_read_mbox(tmp_path: Path, newline: bytes) -> None:
    """Cut where a From line follows an empty one, and nowhere else."""
    file = tmp_path / "mbox"
    lines = b"From a Mon Nov 23\n" + ONE + b"From within\n\nFrom b Mon Nov 23\n" + TWO + b"\nFrom c\n"
    file.write_bytes(lines.replace(b"\n", newline))
    expected = [ONE + b"From within\n\n", TWO + b"\n", b""]
    assert contents(file) == [content.replace(b"\n", newline) for content in expected]
    assert [stored.name for stored in read(file)] == [f"{file} (message {number})" for number in (1, 2, 3)]


def test_read_mbox_message_at_most(tmp_path: Path) -> None:
    """A huge message is cut short, and the next one is found."""
    file = tmp_path / "mbox"
    file.write_bytes(b"From a\n\n" + b"x\n" * 100_000 + b"\nFrom b\n" + ONE)
    first, second = read(file)
    assert first.content is not None
    assert len(first.content) <= 1001
    assert second.content == ONE


def test_read_what_was_seen(tmp_path: Path) -> None:
    """Known by its beginning, in a file of its own as in an mbox; its content is not read again."""
    alone, mbox = tmp_path / "one.eml", tmp_path / "mbox"
    alone.write_bytes(ONE + b"x" * (3 * DIGEST_OF))
    mbox.write_bytes(b"From a\n" + alone.read_bytes() + b"\n\nFrom b\n" + TWO)
    [stored] = read(alone, at_most=1 << 20)
    first, second = read(mbox, at_most=1 << 20)
    assert first.digest == stored.digest != second.digest
    again = [*read_messages(alone, at_most=1 << 20, seen={stored.digest})]
    assert again == [StoredMessage(name=str(alone), content=None)]
    contents = [one.content for one in read_messages(mbox, at_most=1 << 20, seen={stored.digest})]
    assert contents == [None, TWO]


def test_digest_of_two_messages_that_differ_at_the_beginning(tmp_path: Path) -> None:
    """Received and Message-ID stand there."""
    for number in (1, 2):
        (tmp_path / str(number)).write_bytes(f"Message-ID: <{number}@example.org>\n".encode() + ONE)
    assert len({stored.digest for number in (1, 2) for stored in read(tmp_path / str(number))}) == 2


def test_read_maildir(tmp_path: Path) -> None:
    """New mail, then mail that was seen; no other file or folder; and nothing is moved."""
    for folder in ("cur", "new", "tmp"):
        (tmp_path / folder).mkdir()
    (tmp_path / "new" / "2").write_bytes(TWO)
    (tmp_path / "cur" / "1:2,S").write_bytes(ONE)
    (tmp_path / "tmp" / "3").write_bytes(b"half")
    (tmp_path / "new" / "folder").mkdir()
    os.mkfifo(tmp_path / "new" / "pipe")
    assert is_maildir(tmp_path)
    assert contents(tmp_path) == [TWO, ONE]
    assert contents(tmp_path) == [TWO, ONE]


def test_read_maildir_with_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file that cannot be opened does not hide the next."""
    for folder in ("cur", "new"):
        (tmp_path / folder).mkdir()
    (tmp_path / "new" / "1").write_bytes(ONE)
    (tmp_path / "new" / "2").write_bytes(TWO)
    open_it = Path.open

    def refuse(path: Path, mode: str) -> object:
        if path.name == "1":
            raise PermissionError(13, "Permission denied")
        return open_it(path, mode)

    monkeypatch.setattr(Path, "open", refuse)  # root reads everything
    refused = StoredMessage(name=str(tmp_path / "new" / "1"), content=None, error="Permission denied")
    assert read(tmp_path) == [refused, StoredMessage(name=str(tmp_path / "new" / "2"), content=TWO)]


def test_read_file_that_is_gone(tmp_path: Path) -> None:
    """A mail program moved it from new to cur meanwhile."""
    [stored] = read(tmp_path / "gone")
    assert (stored.content, stored.error) == (None, "No such file or directory")


def test_read_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ONE)))
    assert read(STANDARD_INPUT) == [StoredMessage(name="standard input", content=ONE)]


def test_read_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert contents(tmp_path / "empty") == [b""]


def test_printable_of_a_name_that_writes_to_the_terminal() -> None:
    assert printable(Path("a\x1b[2Jb\n\udcffc")) == "a\\x1b[2Jb\\n\\udcffc"
