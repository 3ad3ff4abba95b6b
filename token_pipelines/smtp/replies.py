"""Replies as a relay's socket brings them: each one whole within its time, and none without end.

smtplib counts the timeout anew at every read, and reads continuation lines for as long as they come: a relay that
drips, or never ends, would hold a thread for ever.
"""

import socket
from time import monotonic
from typing import Final

_AT_ONCE: Final = 4096  # octets; the replies to a whole pipelined transaction fit many times over
_REPLY_AT_MOST: Final = 1 << 14  # octets; the longest that relays give, to EHLO, are about a thousand


class EndlessReplyError(OSError):
    """A reply went on beyond any sense."""


class Replies:
    """What has arrived and was not yet asked for stays here, until the socket changes."""

    def __init__(self, sock: socket.socket) -> None:
        """``sock`` gets the timeouts that ``next`` is told."""
        self._sock = sock
        self._unread = b""

    def next(self, seconds: float) -> tuple[int, bytes]:
        """The next reply's code, -1 where there is none, and the texts of its lines, joined by LF.

        On the ordinary path this is one read. ``seconds`` are counted over the whole reply.

        Raises:
            OSError: the connection ended (a ConnectionError), the time was up (a TimeoutError), or it had no end.
        """
        data, start, texts, deadline = self._unread, 0, [], 0.0
        while True:
            end = data.find(b"\n", start) + 1
            if end == 0:
                if len(data) >= _REPLY_AT_MOST:
                    raise EndlessReplyError
                left = deadline - monotonic() if deadline else seconds
                deadline = deadline or monotonic() + seconds
                set_timeout(self._sock, left)
                more = self._sock.recv(_AT_ONCE)
                if more:
                    data += more
                    continue
                end = len(data)  # the connection's end also ends a line
                if end == start:
                    raise ConnectionError
            line = data[start:end]
            start = end
            texts.append(line[4:].strip())
            try:
                code = int(line[:3])
            except ValueError:
                code = -1
                break
            if line[3:4] != b"-":
                break
        self._unread = data[start:]
        return code, b"\n".join(texts)

    def close(self) -> None:
        """Forget what is unread; the socket is the owner's."""
        self._unread = b""


def set_timeout(sock: socket.socket, seconds: float) -> None:
    """Set it where it is another one: that is a system call, and nearly always it is this one.

    Raises:
        TimeoutError: the time is over. For a socket 0 would mean not to wait at all.
    """
    if seconds <= 0:
        raise TimeoutError
    if sock.gettimeout() != seconds:
        sock.settimeout(seconds)
