"""One connection to the relay: a socket that never blocks, and the conversation over it.

``resume``, ``hear`` and ``lose`` continue the conversation until it needs something, and return that: see
`conversation.Wants`. None means that it waits for the relay. They raise what the conversation raises.
"""

import ssl
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Final

from token_pipelines.smtp import connecting
from token_pipelines.smtp.answers import Lost
from token_pipelines.smtp.conversation import Conversation, Offers, Step, Wants, converse
from token_pipelines.smtp.replies import EndlessReplyError, RawReply, ReplyParser
from token_pipelines.smtp.session import SmtpSession

_AT_ONCE: Final = 4096  # octets; the replies to several messages
_NOT_NOW: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Lane:
    """Made by `Relay.connect`. ``due`` is the deadline for the reply that it waits for, on the monotonic clock."""

    def __init__(
        self, session: SmtpSession, *, name: str, command_timeout: float, dot_timeout: float, recycle_after: int
    ) -> None:
        """Take over a session that is ready for its first message. Timeouts in seconds.

        Raises:
            Lost: the session has ended already.
        """
        if session.sock is None:
            raise Lost
        self._session, self._socket = session, session.sock
        replies, unread = session.unread
        self._replies = deque(self._without_secrets(replies))
        self._parser = ReplyParser(unread)
        self._socket.settimeout(0.0)
        self._is_tls = isinstance(self._socket, ssl.SSLSocket)
        self._unsaid = b""
        self._has_ended = False
        self._seconds = {Wants.REPLY: command_timeout, Wants.DOT_REPLY: dot_timeout}
        self._waits: Wants | None = None
        self.due = 0.0
        offers = Offers(
            relay=name,
            pipelining=session.has_extn("pipelining"),
            smtputf8=session.has_extn("smtputf8"),
            eight_bit=session.has_extn("8bitmime"),
            dsn=session.has_extn("dsn"),
        )
        self._conversation: Conversation = converse(offers, self._say, recycle_after=recycle_after)

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    @property
    def has_unsaid(self) -> bool:
        """Whether there are octets that the socket could not take yet."""
        return bool(self._unsaid)

    @property
    def waits(self) -> bool:
        """Whether the conversation waits for the relay."""
        return self._waits is not None

    def resume(self, value: object = None) -> Step | None:
        """Send the conversation what it needs. The first time, that is nothing."""
        return self._go_on(lambda: self._conversation.send(value))

    def hear(self) -> Step | None:
        """Write and read what can be written and read now."""
        with suppress(OSError):  # what the relay sent before it hung up can still be read
            self._flush()
        try:
            self._read()
        except EndlessReplyError:
            return self.lose("endless answer")
        except OSError:
            self._has_ended = True
        if self._waits is not None and self._replies:
            reply = self._replies.popleft()
            return self._go_on(lambda: self._conversation.send(reply))
        if self._replies or self._has_ended:  # an unrequested reply would be taken for the answer to the next command
            return self.lose()
        return None

    def lose(self, what: str = "connection lost") -> Step | None:
        """Tell the conversation that the connection is lost."""
        self._has_ended = True
        lost = Lost(what, unsaid=len(self._unsaid))
        return self._go_on(lambda: self._conversation.throw(lost))

    def _go_on(self, advance: Callable[[], Step]) -> Step | None:
        self._waits = None
        try:
            step = advance()
            while step is Wants.REPLY or step is Wants.DOT_REPLY:
                if self._replies:
                    step = self._conversation.send(self._replies.popleft())
                elif self._has_ended:
                    step = self._conversation.throw(Lost(unsaid=len(self._unsaid)))
                else:
                    self._waits = step
                    self.due = monotonic() + self._seconds[step]
                    return None
        except StopIteration:
            return Wants.END
        return step

    def _say(self, octets: bytes) -> None:
        self._unsaid += octets
        try:
            self._flush()
        except OSError:  # reported when the answer is waited for, with the count of unsent octets
            self._has_ended = True

    def _flush(self) -> None:
        try:
            while self._unsaid:
                self._unsaid = self._unsaid[self._socket.send(self._unsaid) :]
                if self._waits is not None:  # the timeout of the answer begins when the last octet is sent
                    self.due = monotonic() + self._seconds[self._waits]
        except _NOT_NOW:
            pass

    def _read(self) -> None:
        """Read what has come. The end of the connection also ends a reply."""
        try:
            octets = self._socket.recv(_AT_ONCE)
            while self._is_tls and self._socket.pending():  # type: ignore[attr-defined]
                octets += self._socket.recv(_AT_ONCE)
        except _NOT_NOW:
            return
        self._has_ended |= not octets
        self._replies.extend(self._without_secrets(self._parser.feed(octets) if octets else self._parser.end()))

    def _without_secrets(self, replies: Iterable[RawReply]) -> Iterable[RawReply]:
        """A relay that takes a line of ours for something else may repeat the login at any later stage."""
        return [(code, self._session.secrets.removed_from(text)) for code, text in replies]

    def close(self) -> None:
        """Hang up."""
        self._conversation.close()
        self._session.close()

    def quit(self) -> None:
        """Send QUIT and close. Blocks for a short time, to wait for the answer."""
        self._conversation.close()
        self._socket.settimeout(None)
        connecting.part(self._session)
