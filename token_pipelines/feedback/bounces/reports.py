"""What a delivery report (RFC 3464) says: about which notice, at which address, and whether it is given up.

Anyone can write to the address that bounces go to, so this takes bytes from strangers: parts are cut out by their
boundaries and only headers go through the standard library's parser, which costs time in proportion to the size and
does not recurse. Knows neither files nor the ledger.
"""

import base64
import binascii
import quopri
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.errors import MessageError
from email.message import Message
from email.parser import BytesHeaderParser
from itertools import islice
from typing import Final

from token_pipelines.model import DEAD_ADDRESS, Stage
from token_pipelines.smtp.session import reply

READ_AT_MOST: Final = 1 << 20
"""Octets of a message that are looked at. The report comes before the returned message, which may be of any size."""

_NESTED_AT_MOST: Final = 4  # a gateway that adds a footer wraps a report once; nobody wraps it five times
_PARTS_AT_MOST: Final = 50
_RECIPIENTS_AT_MOST: Final = 100
_HEADER_AT_MOST: Final = 2000  # characters; the standard library needs a day for a parameter list of a megabyte
_IDS_AT_MOST: Final = 20
_STATUS_TYPES: Final = frozenset({"message/delivery-status", "message/global-delivery-status"})
_RETURNED_TYPES: Final = frozenset(
    {"message/rfc822", "text/rfc822-headers", "message/rfc822-headers", "message/global", "message/global-headers"}
)
_SENT_TO: Final = ("X-Original-To", "Delivered-To", "Envelope-To", "X-Envelope-To", "To")
"""Where a mail system leaves the address that a report was sent to, surest first."""

_NOTICE_ID: Final = re.compile(r"(?<![0-9a-f-])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-f-])", re.IGNORECASE)
_STATUS: Final = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?!\.?\d)", re.ASCII)
_ANSWER: Final = re.compile(r"\b([45]\d\d)(?=[ -]|$)", re.ASCII)
_END_OF_HEADERS: Final = re.compile(rb"(?:^|\r?\n)\r?\n")
_BLANK_LINE: Final = re.compile(rb"\r?\n[ \t]*\r?\n")
_UTF8_ESCAPE: Final = re.compile(r"\\x\{([0-9a-fA-F]{2,6})\}")  # RFC 6533, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A delivery report on one message of ours.

    ``notice_ids`` are the ids that it may be about, surest first. ``address`` is the one that could not be reached,
    as the report gives it: in memory only. ``reply`` has addresses removed.
    """

    notice_ids: tuple[str, ...]
    action: str
    status: str | None
    address: str | None
    code: int | None
    reply: str

    @property
    def given_up(self) -> bool:
        """Whether it was not delivered and is not tried again. A 4.4.1 that lasted for days ends so too."""
        return self.action == "failed"

    @property
    def delayed(self) -> bool:
        """Whether the mail system still tries."""
        return self.action == "delayed"

    @property
    def address_is_dead(self) -> bool:
        """Whether the address itself is what was wrong."""
        return self.given_up and self.status in DEAD_ADDRESS


def read_report(message: bytes) -> Report | None:
    """The delivery report that ``message`` is, or None if it is something else, or broken beyond reading."""
    top = _part(message[:READ_AT_MOST])
    parts = [*_parts(top, _NESTED_AT_MOST)]
    status = next((part for part in parts if part.kind in _STATUS_TYPES), None)
    if status is None:
        return None
    fields = [_part(block).headers for block in _blocks(status.decoded())]
    about = [one for one in fields if any(name in one for name in ("Final-Recipient", "Action", "Status"))]
    if not about:
        return None
    worst = min(about, key=lambda one: ("failed", "delayed", _action(one)).index(_action(one)))
    code, text = _diagnostic(worst)
    return Report(
        notice_ids=tuple(dict.fromkeys(islice(_notice_ids(top.headers, parts, fields), _IDS_AT_MOST))),
        action=_action(worst),
        status=_status(worst),
        address=_address(worst),
        code=code,
        reply=text,
    )


def _notice_ids(top: Message, parts: list["_Part"], fields: list[Message]) -> Iterator[str]:
    """VERP, then the envelope's id, then the Message-ID of what came back, then what the report says it answers."""
    for name in _SENT_TO:
        for value in _all(top, name):
            yield from _ids(value)
    for one in fields:
        yield from _ids(_text(one, "Original-Envelope-Id"))
    for part in parts:
        if part.kind in _RETURNED_TYPES:
            yield from _ids(_text(_part(part.decoded()).headers, "Message-ID"))
    for name in ("In-Reply-To", "References"):
        yield from _ids(_text(top, name))


def _ids(text: str) -> list[str]:
    return [found.lower() for found in _NOTICE_ID.findall(text)]


@dataclass(frozen=True, slots=True)
class _Part:
    """Headers, and the octets after them. The standard library's own payload is text of a charset of its choice."""

    headers: Message
    body: bytes

    @property
    def kind(self) -> str:
        return self.headers.get_content_type()

    @property
    def boundary(self) -> bytes | None:
        """What divides a multipart message into its parts."""
        if not self.kind.startswith("multipart/") or len(str(self.headers["Content-Type"])) > _HEADER_AT_MOST:
            return None
        try:
            boundary = self.headers.get_boundary()
        except (ValueError, LookupError, MessageError):  # a charset that does not exist, a parameter without sense
            return None
        return boundary.encode("utf-8", "replace") if boundary else None

    def decoded(self) -> bytes:
        """The body without its transfer encoding; as it stands when that is broken."""
        encoding = _text(self.headers, "Content-Transfer-Encoding").lower()
        if encoding == "quoted-printable":
            return quopri.decodestring(self.body)
        if encoding == "base64":
            try:
                return base64.b64decode(self.body)
            except binascii.Error:
                return self.body
        return self.body


def _part(data: bytes) -> _Part:
    end = _END_OF_HEADERS.search(data)
    head, body = (data[: end.start()], data[end.end() :]) if end is not None else (data, b"")
    return _Part(BytesHeaderParser().parsebytes(head), body)


def _parts(outer: _Part, depth: int) -> Iterator[_Part]:
    """The parts of a multipart message, those of inner multiparts in their place. A returned message is not opened."""
    boundary = outer.boundary
    if boundary is None or depth == 0:
        return
    delimiter = re.compile(rb"(?:^|\n)--" + re.escape(boundary) + rb"(?:--)?[ \t]*\r?(?=\n|$)")
    for chunk in delimiter.split(outer.body, _PARTS_AT_MOST)[1:]:
        part = _part(chunk.removeprefix(b"\n"))
        yield part
        yield from _parts(part, depth - 1)


def _blocks(status: bytes) -> list[bytes]:
    return [block for block in _BLANK_LINE.split(status, _RECIPIENTS_AT_MOST) if block.strip()]


def _all(message: Message, name: str) -> list[str]:
    """The headers of this name, each on one line and not endless, as UTF-8."""
    found = [value for key, value in message.raw_items() if key.lower() == name.lower()]
    texts = [value[:_HEADER_AT_MOST].encode("ascii", "surrogateescape").decode("utf-8", "replace") for value in found]
    return [" ".join(text.split()) for text in texts]


def _text(message: Message, name: str) -> str:
    """The first header of this name, or nothing."""
    return next(iter(_all(message, name)), "")


def _action(one: Message) -> str:
    """In lower case, without a comment. A report without one is read by the class of its status."""
    action = _text(one, "Action").lower().partition(" ")[0].partition("(")[0]
    if action:
        return action
    return {"5": "failed", "4": "delayed"}.get(_text(one, "Status")[:1], "unknown")


def _status(one: Message) -> str | None:
    """The enhanced status code; where it is as vague as 5.0.0, the one that the other side's answer begins with."""
    found = _STATUS.search(_text(one, "Status"))
    said = _STATUS.search(_text(one, "Diagnostic-Code"))
    if said is not None and (found is None or (found[1] == said[1] and found[2] == "0")):
        return said[0]
    return found[0] if found is not None else None


def _address(one: Message) -> str | None:
    """The address that could not be reached; None when the report does not name it as an email address."""
    kind, _, value = _text(one, "Final-Recipient").partition(";")
    address = value.strip().strip("<>")
    if kind.strip().lower() == "utf-8":
        address = _UTF8_ESCAPE.sub(lambda match: _character(match[1]), address)
    return address if "@" in address else None


def _character(code_point: str) -> str:
    try:
        return chr(int(code_point, 16))
    except ValueError:
        return ""


def _diagnostic(one: Message) -> tuple[int | None, str]:
    """The SMTP code, if there is one, and what was said, with addresses and the name before their @ removed."""
    kind, _, said = _text(one, "Diagnostic-Code").partition(";")
    said = (said or kind).strip()
    code = _ANSWER.match(said)
    words = said[code.end() + 1 :] if code else said
    recipients = [_text(one, name).partition(";")[2].strip() for name in ("Final-Recipient", "Original-Recipient")]
    hide = [*filter(None, (_address(one), *recipients))]
    return (int(code[1]) if code else None), reply(Stage.BOUNCE, int(code[1]) if code else 0, words, hide=hide).text
