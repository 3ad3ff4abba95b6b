"""An SMTP session opened by smtplib, and its replies. ``answers`` has what replies mean for a message.

smtplib opens a session (TLS, EHLO, the login) and sends QUIT. `conversation` sends the messages: smtplib's ``sendmail``
drops the reply to the final dot, and raises the same error for "lost before the message" and "lost after it was
accepted".
"""

import re
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from token_pipelines.model import Stage
from token_pipelines.smtp.queue_ids import queue_id_in
from token_pipelines.smtp.redaction import LOGIN_PART, Secrets, readable, redacted
from token_pipelines.smtp.replies import EndlessReplyError, RawReply, Replies, set_timeout

CLOSING: Final = 421
"""The relay ends the connection; it may answer this to any command (RFC 5321, 3.8)."""

_REPLY_LIMIT: Final = 500  # characters kept of a reply
_READ_AT_MOST: Final = 2000  # characters of a reply that are searched
_ENHANCED: Final = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?!\S)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """The relay's answer at a stage. ``text`` has addresses removed, and is empty if it is a yes.

    ``enhanced`` is like ``5.1.1``. ``queue_id`` is the relay's id of an accepted message, if it gives one.
    """

    stage: Stage
    code: int
    text: str
    enhanced: str | None
    queue_id: str | None = None

    def __str__(self) -> str:
        """The code and the text, for messages."""
        return f"{self.code} {self.text}".strip()

    @property
    def accepted(self) -> bool:
        """Whether this is a yes."""
        return 200 <= self.code < 300  # noqa: PLR2004 RFC 5321, 4.2.1: 2yz is positive completion

    @property
    def later(self) -> bool:
        """Whether this is "not now"."""
        return 400 <= self.code < 500  # noqa: PLR2004 4yz is transient negative completion

    @property
    def never(self) -> bool:
        """Whether this is a no for good."""
        return 500 <= self.code < 600  # noqa: PLR2004 5yz is permanent negative completion


class ConnectionLost(Exception):  # noqa: N818 -- an event that `connecting` handles, never an operator's error
    """No answer: the connection ended, or the time is up. ``stage`` says where."""

    def __init__(self, stage: Stage, cause: BaseException | None) -> None:
        """``cause`` is the error that smtplib or the socket raised, if any."""
        causes = (cause, getattr(cause, "__context__", None))  # smtplib's own errors hide the socket's
        what = "connection lost"
        if any(isinstance(one, TimeoutError) for one in causes):
            what = "no answer in time"
        elif any(isinstance(one, EndlessReplyError) for one in causes):
            what = "endless answer"
        super().__init__(what)
        self.stage = stage


class SmtpSession(smtplib.SMTP):
    """A session over a plain socket, which STARTTLS may encrypt."""

    timeout: float
    file: Replies | None = None
    secrets = Secrets()
    """What is removed from every reply before anything else."""

    def __init__(self, host: str, *, timeout: float, own_name: str | None) -> None:
        """Does not connect yet. ``own_name`` is the name in EHLO; None asks the resolver, which may be slow.

        ``timeout`` is in seconds, for connecting, for each write and for each reply as a whole.
        """
        super().__init__(local_hostname=own_name, timeout=timeout)
        self._host = host  # smtplib checks the certificate against it, but sets it only if it connects in __init__
        self._refusal: smtplib.SMTPAuthenticationError | None = None

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        # Without TCP_NODELAY a message in two segments waits 44 ms for the relay's delayed acknowledgement.
        found: socket.socket = super()._get_socket(host, port, timeout)  # type: ignore[misc]
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found

    @property
    def unread(self) -> tuple[list[RawReply], bytes]:
        """Unrequested input: whole replies, and the octets after them."""
        return ([], b"") if self.file is None else self.file.left()

    def wait_at_most(self, seconds: float) -> None:
        """From now on, each write and each reply must be complete within ``seconds``."""
        self.timeout = seconds

    def send(self, s: bytes | str) -> None:  # type: ignore[override]
        """Send, like smtplib's method that all its steps use; but the timeout covers the whole write.

        Raises:
            SMTPServerDisconnected: its context is the socket's error.
        """
        unsaid = memoryview(s.encode(self.command_encoding) if isinstance(s, str) else s)
        deadline = monotonic() + self.timeout
        try:
            if self.sock is None:
                raise ConnectionError
            set_timeout(self.sock, self.timeout)
            while unsaid := unsaid[self.sock.send(unsaid) :]:
                set_timeout(self.sock, deadline - monotonic())
        except OSError as error:
            self.close()
            raise smtplib.SMTPServerDisconnected from error

    def getreply(self) -> tuple[int, bytes]:
        """Read a reply, like smtplib's method that all its steps use; but limit the whole reply in time and length.

        Raises:
            SMTPServerDisconnected: its context is the socket's error.
        """
        if self.file is None:  # a new socket: smtplib forgets what came before TLS, as it must (RFC 3207, 6)
            if self.sock is None:
                raise smtplib.SMTPServerDisconnected
            self.file = Replies(self.sock)
        try:
            return self.file.next(self.timeout)
        except OSError as error:
            self.close()
            raise smtplib.SMTPServerDisconnected from error

    def auth(
        self, mechanism: str, authobject: Callable[..., str | None], *, initial_response_ok: bool = True
    ) -> tuple[int, bytes]:
        """Like smtplib's, whose ``login`` tries the next method after any refusal; but after a 421 it stops.

        Raises:
            SMTPResponseException: a 421; or a refusal after which the relay hung up on the next method.
            SMTPAuthenticationError: any other refusal.
        """
        try:
            return super().auth(mechanism, authobject, initial_response_ok=initial_response_ok)  # type: ignore[arg-type]
        except smtplib.SMTPAuthenticationError as error:
            if error.smtp_code == CLOSING:
                raise smtplib.SMTPResponseException(error.smtp_code, error.smtp_error) from None
            self._refusal = error
            raise
        except smtplib.SMTPServerDisconnected:
            if self._refusal is None:
                raise
            raise smtplib.SMTPResponseException(self._refusal.smtp_code, self._refusal.smtp_error) from None


class TlsSmtpSession(SmtpSession):
    """A session that is encrypted from the first byte. ``SMTP_SSL`` connects in __init__, or forgets the host."""

    def __init__(self, host: str, *, timeout: float, own_name: str | None, context: ssl.SSLContext) -> None:
        """``context`` verifies the relay's certificate."""
        super().__init__(host, timeout=timeout, own_name=own_name)
        self._context = context

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        plain = super()._get_socket(host, port, timeout)
        try:
            return self._context.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise


def reply(stage: Stage, code: int, text: bytes | str, *, hide: Iterable[str] = ()) -> Reply:
    """A reply without anything that looks like an address, and without everything in ``hide``: see ``redaction``.

    Codes and queue id are read before the removal, which could damage them. Nothing else is kept of a yes: it has
    nothing that anybody needs to read, and may have anything.
    """
    raw = (text.decode("utf-8", "replace") if isinstance(text, bytes) else text)[:_READ_AT_MOST]
    said = " ".join(readable(raw).split())
    match = _ENHANCED.match(said)
    head = match[0] if match is not None else ""
    is_yes = 200 <= code < 300  # noqa: PLR2004 as `Reply.accepted`
    line = "" if is_yes else head + redacted(said[len(head) :], hide)
    enhanced = head if head.startswith(str(code)[0]) else None
    queue_id = queue_id_in(said[:_REPLY_LIMIT]) if stage is Stage.DOT else None
    if queue_id is not None and (LOGIN_PART in f"<{queue_id}>" or redacted(queue_id, hide) != queue_id):
        queue_id = None
    return Reply(stage=stage, code=code, text=line[:_REPLY_LIMIT], enhanced=enhanced, queue_id=queue_id)
