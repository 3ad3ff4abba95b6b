"""Replies out of the octets that a relay sends: whole ones, and none without end."""

import socket
from time import monotonic
from typing import Final

_AT_ONCE: Final = 4096  # octets; the replies to a whole pipelined transaction fit many times over
_REPLY_AT_MOST: Final = 1 << 14  # octets; the longest that relays give, to EHLO, are about a thousand

RawReply = tuple[int, bytes]
"""A reply's code, -1 where there is none, and the texts of its lines, joined by LF."""


class EndlessReplyError(OSError):
    """A reply went on beyond any sense."""


class ReplyParser:
    """Takes octets as they come, gives replies as soon as they are whole."""

    def __init__(self, unread: bytes = b"") -> None:
        """``unread`` are octets that came already."""
        self.unread = unread

    def feed(self, octets: bytes) -> list[RawReply]:
        """The replies that are whole now.

        Raises:
            EndlessReplyError: the one that is not whole is too long.
        """
        data = self.unread + octets
        found: list[RawReply] = []
        texts: list[bytes] = []
        done = start = 0
        while end := data.find(b"\n", start) + 1:
            code, text, is_last = _line(data[start:end])
            texts.append(text)
            start = end
            if is_last:
                found.append((code, b"\n".join(texts)))
                texts, done = [], end
        self.unread = data[done:]
        if len(self.unread) >= _REPLY_AT_MOST:
            raise EndlessReplyError
        return found

    def end(self) -> list[RawReply]:
        """The reply that the connection's end makes whole, if there is one: the end also ends a line."""
        return self.feed(b"\n") if self.unread.rpartition(b"\n")[2] else []


class Replies:
    """The replies on a blocking socket. Each one must be whole within its time.

    smtplib counts the timeout anew at every read, and reads continuation lines for as long as they come: a relay that
    sends octet after octet, or never ends, would hold a thread for ever.
    """

    def __init__(self, sock: socket.socket) -> None:
        """``sock`` gets the timeouts that ``next`` is told."""
        self._sock = sock
        self._parser = ReplyParser()
        self._waiting: list[RawReply] = []

    def next(self, seconds: float) -> RawReply:
        """The next reply. ``seconds`` are counted over the whole of it.

        Raises:
            OSError: the connection ended (a ConnectionError), the time was up (a TimeoutError), or it had no end.
        """
        deadline = 0.0
        while not self._waiting:
            left = deadline - monotonic() if deadline else seconds
            deadline = deadline or monotonic() + seconds
            set_timeout(self._sock, left)
            octets = self._sock.recv(_AT_ONCE)
            self._waiting = self._parser.feed(octets) if octets else self._parser.end()
            if not octets and not self._waiting:
                raise ConnectionError
        return self._waiting.pop(0)

    def left(self) -> tuple[list[RawReply], bytes]:
        """What has come and was not asked for: whole replies, and the octets behind them."""
        return self._waiting, self._parser.unread

    def close(self) -> None:
        """Forget what has come; the socket is the owner's."""
        self._waiting, self._parser = [], ReplyParser()


def set_timeout(sock: socket.socket, seconds: float) -> None:
    """Set it where it is another one: that is a system call, and nearly always it is this one.

    Raises:
        TimeoutError: the time is over. For a socket 0 would mean not to wait at all.
    """
    if seconds <= 0:
        raise TimeoutError
    if sock.gettimeout() != seconds:
        sock.settimeout(seconds)


def _line(line: bytes) -> tuple[int, bytes, bool]:
    """A line's code, its text, and whether it is the last of its reply. A line without a code is."""
    try:
        code = int(line[:3])
    except ValueError:
        return -1, line[4:].strip(), True
    return code, line[4:].strip(), line[3:4] != b"-"
