"""How replies come out of a socket: a fake one, and a clock that moves when it is read."""

import socket
from collections.abc import Iterable
from typing import cast

import pytest

from token_pipelines.smtp import replies
from token_pipelines.smtp.replies import EndlessReplyError, Replies

SECONDS = 30.0


class Line:
    """A socket that gives one piece at each read, ``pause`` seconds after it was asked."""

    def __init__(self, pieces: Iterable[bytes], pause: float = 0.0) -> None:
        self.pieces = iter(pieces)
        self.pause = pause
        self.now = 1000.0
        self.timeout = SECONDS
        self.timeouts: list[float] = []

    def recv(self, _: int) -> bytes:
        if self.pause > self.timeout:
            self.now += self.timeout
            raise TimeoutError
        self.now += self.pause
        return next(self.pieces, b"")

    def gettimeout(self) -> float:
        return self.timeout

    def settimeout(self, seconds: float) -> None:
        self.timeout = seconds
        self.timeouts.append(seconds)


def heard(line: Line) -> Replies:
    return Replies(cast("socket.socket", line))


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> type[Line]:
    """Lines whose own clock is the one that is looked at."""

    class Clocked(Line):
        def __init__(self, pieces: Iterable[bytes], pause: float = 0.0) -> None:
            super().__init__(pieces, pause)
            monkeypatch.setattr(replies, "monotonic", lambda: self.now)

    return Clocked


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([b"250 2.0.0 Ok\r\n"], (250, b"2.0.0 Ok")),
        ([b"250\r\n"], (250, b"")),
        ([b"250-one\r\n250-two\r\n", b"250 three\r\n"], (250, b"one\ntwo\nthree")),
        ([b"2", b"5", b"0 Ok\r", b"\n"], (250, b"Ok")),
        ([b"250 only a line feed\n"], (250, b"only a line feed")),
        ([b"250 cut off"], (250, b"cut off")),
        ([b"25"], (25, b"")),
        ([b"HTTP/1.1 400 Bad Request\r\n"], (-1, b"/1.1 400 Bad Request")),
        ([b"\r\n"], (-1, b"")),
    ],
)
def test_next_reads(pieces: list[bytes], expected: tuple[int, bytes]) -> None:
    """As smtplib reads it."""
    assert heard(Line(pieces)).next(SECONDS) == expected


def test_next_several_in_one_read() -> None:
    """The answers to commands that went out together: one read, and nobody touches the timeout."""
    line = Line([b"250 one\r\n250-two\r\n250 and\r\n354 three\r\n25", b"0 four\r\n"])
    several = heard(line)
    assert [several.next(SECONDS) for _ in range(4)] == [
        (250, b"one"),
        (250, b"two\nand"),
        (354, b"three"),
        (250, b"four"),
    ]
    assert line.timeouts == []


@pytest.mark.parametrize("pieces", [[], [b"250-more\r\n"], [b"250-more\r\n250-cut o"]])
def test_next_connection_ended(pieces: list[bytes]) -> None:
    with pytest.raises(ConnectionError):
        heard(Line(pieces)).next(SECONDS)


@pytest.mark.parametrize("piece", [b"2", b"250-still here\r\n"])
def test_next_drips(piece: bytes, clocked: type[Line]) -> None:
    """The time is that of the whole reply, however it is cut up."""
    line = clocked((piece for _ in range(10_000)), pause=7.0)
    with pytest.raises(TimeoutError):
        heard(line).next(SECONDS)
    assert line.now == 1000.0 + SECONDS


def test_next_slow_but_in_time(clocked: type[Line]) -> None:
    """Each piece waits for what is left of the time, and the next reply has its own again."""
    line = clocked([b"250-", b"one\r\n", b"250 two\r\n", b"250 three\r\n"], pause=9.0)
    several = heard(line)
    assert several.next(SECONDS) == (250, b"one\ntwo")
    assert line.timeouts == [21.0, 12.0]
    assert several.next(SECONDS) == (250, b"three")
    assert line.timeouts == [21.0, 12.0, SECONDS]


@pytest.mark.parametrize("piece", [b"x" * 1000, b"250-and so on\r\n" * 50])
def test_next_without_end(piece: bytes) -> None:
    """It stops after some kilobytes, long before the time is up."""
    read = 0

    def pieces() -> Iterable[bytes]:
        nonlocal read
        while True:
            read += len(piece)
            yield piece

    with pytest.raises(EndlessReplyError):
        heard(Line(pieces())).next(SECONDS)
    assert read < 20_000
