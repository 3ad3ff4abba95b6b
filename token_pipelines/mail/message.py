"""Serialises a rendered notice to the bytes that are sent. Deterministic: a resend has the same bytes as the original.

The message has one fixed shape, written out here. The standard library's ``EmailMessage`` takes about twenty times as
long, and encodes a ``List-Unsubscribe`` longer than a line, which breaks one-click unsubscribing. The tests check that
``EmailMessage`` parses every message to the same content.
"""

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import Final

from token_pipelines import config
from token_pipelines.addresses import LOCAL_OCTETS, PATH_OCTETS, wire_address
from token_pipelines.bounce_address import TAG_LENGTH
from token_pipelines.envelope import Envelope
from token_pipelines.errors import ConfigError
from token_pipelines.mail import links
from token_pipelines.mail.addresses import parse_mailbox
from token_pipelines.mail.dkim import Signer
from token_pipelines.mail.mime import CRLF, LINE_LIMIT, mailbox, transfer_encoded, unstructured
from token_pipelines.mail.names import clean
from token_pipelines.mail.rendering import Content
from token_pipelines.model import Recipient

_DISPLAY_LIMIT: Final = 100
_SUBJECT_LIMIT: Final = 200
_ADDED: Final = TAG_LENGTH + 1  # a plus, and a notice's tag
_BOUNCES_LOCAL_LIMIT: Final = LOCAL_OCTETS - _ADDED
_BOUNCES_LIMIT: Final = PATH_OCTETS - _ADDED
_MESSAGE_ID: Final = re.compile(r"<[!-;=?A-~]{1,200}@[!-;=?A-~]{1,200}>")
_NOTICE_ID: Final = re.compile(r"<([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})@")
_FEEDBACK_ID: Final = re.compile(r"[!-~]{1,200}")
_TEXT_PART: Final = b'\r\nContent-Type: text/plain; charset="utf-8"\r\nContent-Transfer-Encoding: '
_HTML_PART: Final = _TEXT_PART.replace(b"plain", b"html")


class Serialiser:
    """Makes envelopes; safe to use from any thread. ``domain`` is the sender's domain, for Message-IDs."""

    def __init__(
        self, email: config.Email, signer: Signer | None = None, *, tag: Callable[[str], str] | None = None
    ) -> None:
        """Check the sender and the links. Without a ``signer`` the message is not signed here; the relay may sign it.

        ``tag`` gives a notice's tag (`bounce_address`); without it the envelope sender names no notice.

        Raises:
            ConfigError: ``email.from``, ``reply_to``, ``bounces``, ``feedback_id`` or a link cannot be used.
        """
        links.check(email.links)
        self._signer = signer
        self._unsubscribe = email.links.unsubscribe
        name, self._sender = parse_mailbox(email.sender, "email.from")
        self.domain = self._sender.rpartition("@")[2]
        self._tag = tag
        self._bounces = None if email.bounces is None else _bounces(email.bounces)
        self._from = mailbox("From", clean(name, _DISPLAY_LIMIT, stand_in=""), self._sender)
        self._fixed = ["Auto-Submitted: auto-generated", "MIME-Version: 1.0"]
        if email.feedback_id is not None:
            self._fixed.append(f"Feedback-ID: {_feedback_id(email.feedback_id)}")
        if email.reply_to is not None:
            name, address = parse_mailbox(email.reply_to, "email.reply_to")
            self._fixed.append(mailbox("Reply-To", clean(name, _DISPLAY_LIMIT, stand_in=""), address))

    def envelope(self, content: Content, recipient: Recipient, *, message_id: str, at: datetime) -> Envelope:
        """Serialise one message. ``message_id`` is used as given, with its angle brackets; ``at`` becomes the date.

        Raises:
            ValueError: the recipient's address or the message id is not valid.
        """
        if _MESSAGE_ID.fullmatch(message_id) is None:
            msg = "a message id is written <left@right>, in ASCII without blanks"
            raise ValueError(msg)
        address = wire_address(recipient.address)
        # The encoded body never contains "--=_", so no line of it can be taken for the boundary.
        boundary = "=_" + hashlib.sha256(message_id.encode()).hexdigest()[:24]
        headers = [
            self._from,
            f"To: {address}",  # without the recipient's name: it is user input, and stays in the body
            unstructured("Subject", clean(content.subject, _SUBJECT_LIMIT)),
            f"Date: {_date(at.astimezone(UTC).replace(microsecond=0))}",
            f"Message-ID: {message_id}",
            *self._fixed,
            *self._one_click(recipient),
            f'Content-Type: multipart/alternative; boundary="{boundary}"',
        ]
        body = _alternatives(content, boundary.encode())
        if self._signer is not None:
            headers = self._signer.sign(headers, body, at=at) + headers
        sender, envid = self._return_path(message_id)
        # The head is ASCII, unless the recipient's address needs SMTPUTF8.
        head = CRLF.join([*headers, "", ""]).encode()
        # Both parts of the body get their line ends from `mime.transfer_encoded`.
        return Envelope(sender=sender, recipient=address, data=head + body, envid=envid, body_from=len(head))

    def _one_click(self, recipient: Recipient) -> list[str]:
        """The headers of RFC 8058: unfolded and unencoded; one-click for https only."""
        if self._unsubscribe is None:
            return []
        line = f"List-Unsubscribe: <{links.fill(self._unsubscribe, recipient_id=recipient.recipient_id)}>"
        if len(line) > LINE_LIMIT:  # a very long recipient id; the link in the body remains
            return []
        post = ["List-Unsubscribe-Post: List-Unsubscribe=One-Click"] if self._unsubscribe.startswith("https://") else []
        return [line, *post]

    def _return_path(self, message_id: str) -> tuple[str, str | None]:
        """The envelope sender and the envelope id. With ``email.bounces`` both name the notice."""
        match = _NOTICE_ID.match(message_id)
        if self._bounces is None or self._tag is None or match is None:
            return self._sender if self._bounces is None else "@".join(self._bounces), None
        local, domain = self._bounces
        return f"{local}+{self._tag(match[1])}@{domain}", match[1]


_date = lru_cache(maxsize=64)(format_datetime)
"""Cached: hundreds of messages are sent in the same second."""


def _alternatives(content: Content, boundary: bytes) -> bytes:
    """The body of the multipart: text, then HTML."""
    line = b"\r\n--" + boundary
    encoding, text = transfer_encoded(content.text)
    encoding_of_html, html = transfer_encoded(content.html)
    text_part = (line[2:], _TEXT_PART, encoding, b"\r\n\r\n", text)
    return b"".join((*text_part, line, _HTML_PART, encoding_of_html, b"\r\n\r\n", html, line, b"--\r\n"))


def _bounces(address: str) -> tuple[str, str]:
    name, plain = parse_mailbox(address, "email.bounces")
    local, _, domain = plain.rpartition("@")
    if name or len(local) > _BOUNCES_LOCAL_LIMIT or len(plain) > _BOUNCES_LIMIT:
        msg = (
            f"email.bounces must be a plain address with at most {_BOUNCES_LOCAL_LIMIT} characters before the @ and "
            f"{_BOUNCES_LIMIT} in all, like bounces@example.org: each message adds its notice's id."
        )
        raise ConfigError(msg)
    return local, domain


def _feedback_id(value: str) -> str:
    if _FEEDBACK_ID.fullmatch(value) is None:
        msg = "email.feedback_id must be ASCII without blanks, like token-expiry:example-registry."
        raise ConfigError(msg)
    return value
