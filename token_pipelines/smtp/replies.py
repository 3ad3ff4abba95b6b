"""Parses a relay's octets into whole replies, with a limit on their length."""

import socket
from time import monotonic
from typing import Final

_AT_ONCE: Final = 4096  # octets; the replies to a whole pipelined transaction fit many times over
_REPLY_AT_MOST: Final = 1 << 14  # octets; the longest real replies, to EHLO, have about a thousand

RawReply = tuple[int, bytes]
"""A reply's code, -1 where there is none, and the texts of its lines, joined by LF."""


class EndlessReplyError(OSError):
    """A reply was too long."""


class ReplyParser:
    """Takes octets as they come, and returns replies as soon as they are whole."""

    def __init__(self, unread: bytes = b"") -> None:
        """``unread``: octets that came already."""
        self.unread = unread

    def feed(self, octets: bytes) -> list[RawReply]:
        """The replies that are whole now.

        Raises:
            EndlessReplyError: the incomplete reply is too long.
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
        """The last reply after the connection ended, if any: the end of the connection also ends a line."""
        return self.feed(b"\n") if self.unread.rpartition(b"\n")[2] else []


class Replies:
    """The replies on a blocking socket. Each one must be complete within its timeout.

    smtplib restarts the timeout at every read, and reads any number of continuation lines: a relay that sends one octet
    at a time, or never ends a reply, would block a thread for ever.
    """

    def __init__(self, sock: socket.socket) -> None:
        """``next`` sets the timeout of ``sock``."""
        self._sock = sock
        self._parser = ReplyParser()
        self._waiting: list[RawReply] = []

    def next(self, seconds: float) -> RawReply:
        """The next reply, which must be complete within ``seconds``.

        Raises:
            OSError: the connection ended (ConnectionError), the time is up (TimeoutError), or the reply is too long.
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
        """Unrequested input: whole replies, and the octets after them."""
        return self._waiting, self._parser.unread

    def close(self) -> None:
        """Forget what has come. Does not close the socket."""
        self._waiting, self._parser = [], ReplyParser()


def set_timeout(sock: socket.socket, seconds: float) -> None:
    """Set a socket's timeout if it differs: setting is a system call, and it rarely differs.

    Raises:
        TimeoutError: ``seconds`` is not positive. For a socket, 0 would mean not to wait at all.
    """
    if seconds <= 0:
        raise TimeoutError
    if sock.gettimeout() != seconds:
        sock.settimeout(seconds)


def _line(line: bytes) -> tuple[int, bytes, bool]:
    """A line's code, its text, and whether it is the last of its reply. A line without a code is the last."""
    try:
        code = int(line[:3])
    except ValueError:
        return -1, line[4:].strip(), True
    return code, line[4:].strip(), line[3:4] != b"-"
