"""A rendered notice as the bytes that cross the wire. The same inputs give the same bytes: a resend is a resend.

The header lines are written here, not by ``EmailMessage``: it encodes a ``List-Unsubscribe`` that is longer than its
line, which breaks one-click; it decodes what looks encoded in a subject; and it folds differently between patch
releases. The two bodies are its work.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, formataddr
from typing import Final

from token_pipelines import config
from token_pipelines.mail import links
from token_pipelines.mail.addresses import parse_mailbox, valid_address, wire_address
from token_pipelines.mail.names import clean
from token_pipelines.mail.rendering import Content
from token_pipelines.model import Recipient

_CRLF: Final = "\r\n"
_LINE_LIMIT: Final = 998  # RFC 5322, 2.1.1, without the CRLF
_ENCODED_LIMIT: Final = 76  # RFC 2047, 2: a line with an encoded word
_DISPLAY_LIMIT: Final = 100
_SUBJECT_LIMIT: Final = 200
_MESSAGE_ID: Final = re.compile(r"<[!-;=?A-~]{1,200}@[!-;=?A-~]{1,200}>")
_POLICY: Final = SMTP.clone(cte_type="7bit")


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """One message to one address, ready to send. Addresses are in wire form; lines of ``data`` end in CRLF.

    Raises:
        ValueError: an address is not valid, or a line break is bare. smtplib would cut such an address and send to
            what is left; a relay may take a bare line break and a dot for the end of the message.
    """

    sender: str
    recipient: str
    data: bytes

    def __post_init__(self) -> None:
        """Nothing that could end an SMTP command early gets this far."""
        if not valid_address(self.sender) or not valid_address(self.recipient):
            msg = "an envelope needs valid addresses"
            raise ValueError(msg)
        if not self.data.count(b"\r\n") == self.data.count(b"\n") == self.data.count(b"\r"):
            msg = "an envelope's lines end in CRLF"
            raise ValueError(msg)


class Serialiser:
    """Makes envelopes; safe from any thread. ``domain`` is the sender's, for Message-IDs."""

    def __init__(self, email: config.Email) -> None:
        """Check the sender and the links.

        Raises:
            ConfigError: ``email.from``, ``email.reply_to`` or a link cannot be used.
        """
        links.check(email.links)
        self._unsubscribe = email.links.unsubscribe
        name, self._sender = parse_mailbox(email.sender, "email.from")
        self._from = _mailbox("From", name, self._sender)
        self.domain = self._sender.rpartition("@")[2]
        self._reply_to = (
            _mailbox("Reply-To", *parse_mailbox(email.reply_to, "email.reply_to")) if email.reply_to else None
        )

    def envelope(self, content: Content, recipient: Recipient, *, message_id: str, at: datetime) -> Envelope:
        """The message; ``message_id`` goes in as given, with its angle brackets, and ``at`` becomes its date.

        Raises:
            ValueError: the recipient's address or the message id is not valid.
        """
        if _MESSAGE_ID.fullmatch(message_id) is None:
            msg = "a message id is written <left@right>, in ASCII without blanks"
            raise ValueError(msg)
        address = wire_address(recipient.address)
        lines = [
            self._from,
            f"To: {address}",  # never the recipient's name: it is user input, and greets in the body
            f"Subject: {_encoded('Subject', clean(content.subject, _SUBJECT_LIMIT))}",
            f"Date: {format_datetime(at.astimezone(UTC))}",
            f"Message-ID: {message_id}",
            *([self._reply_to] if self._reply_to else []),
            "Auto-Submitted: auto-generated",
            *self._one_click(recipient),
        ]
        # The head is ASCII, save for an address that only SMTPUTF8 can carry.
        head = "".join(line + _CRLF for line in lines).encode()
        return Envelope(sender=self._sender, recipient=address, data=head + _bodies(content, message_id))

    def _one_click(self, recipient: Recipient) -> list[str]:
        """RFC 8058: unfolded, unencoded, and one-click for https only."""
        if self._unsubscribe is None:
            return []
        line = f"List-Unsubscribe: <{links.fill(self._unsubscribe, recipient_id=recipient.recipient_id)}>"
        if len(line) > _LINE_LIMIT:  # a monstrous recipient id; the link in the body remains
            return []
        post = ["List-Unsubscribe-Post: List-Unsubscribe=One-Click"] if self._unsubscribe.startswith("https://") else []
        return [line, *post]


def _bodies(content: Content, message_id: str) -> bytes:
    """Text and HTML as multipart/alternative, quoted-printable, with the headers that belong to them."""
    message = EmailMessage(policy=_POLICY)
    message.set_content(content.text, cte="quoted-printable")
    message.add_alternative(content.html, subtype="html", cte="quoted-printable")
    # Quoted-printable cannot produce "=_", so no line of a body is a boundary.
    message.set_boundary("=_" + hashlib.sha256(message_id.encode()).hexdigest()[:32])
    return message.as_bytes()


def _mailbox(header: str, name: str, address: str) -> str:
    shown = clean(name, _DISPLAY_LIMIT, stand_in="")
    if _plain(shown):
        return f"{header}: {formataddr((shown, address))}"
    return f"{header}: {_encoded(header, shown)}{_CRLF} <{address}>"


def _encoded(header: str, text: str) -> str:
    """The text as it stands, or in encoded words, folded. What looks encoded is encoded, or it would be decoded."""
    if _plain(text):
        return text
    return Header(text, "utf-8", maxlinelen=_ENCODED_LIMIT, header_name=header).encode(linesep=_CRLF)


def _plain(text: str) -> bool:
    return text.isascii() and "=?" not in text
