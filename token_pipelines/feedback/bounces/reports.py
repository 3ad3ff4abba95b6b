"""Parses a delivery report (RFC 3464): which notice it is about, which address failed, whether delivery was given up.

Anyone can write to the address that receives bounces, so the input is untrusted. Parts are cut out by their boundaries,
and only headers go through the standard library's parser: that takes linear time and does not recurse. Knows neither
files nor the ledger.
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

from token_pipelines.bounce_address import tags_in
from token_pipelines.model import DEAD_ADDRESS, Stage
from token_pipelines.smtp.session import reply

READ_AT_MOST: Final = 1 << 20
"""Octets of a message that are read. The report stands before the returned message, which may have any size."""

_NESTED_AT_MOST: Final = 4  # levels of multipart; a gateway that adds a footer adds one
_PARTS_AT_MOST: Final = 50
_RECIPIENTS_AT_MOST: Final = 100
_HEADER_AT_MOST: Final = 2000  # characters; the standard library takes a day to parse a parameter list of 1 MB
_IDS_AT_MOST: Final = 20
_STATUS_TYPES: Final = frozenset({"message/delivery-status", "message/global-delivery-status"})
_RETURNED_TYPES: Final = frozenset(
    {"message/rfc822", "text/rfc822-headers", "message/rfc822-headers", "message/global", "message/global-headers"}
)
_SENT_TO: Final = ("X-Original-To", "Delivered-To", "Envelope-To", "X-Envelope-To", "To")
"""Headers in which a mail system records the address that a report was sent to, most reliable first."""

_NOTICE_ID: Final = re.compile(r"(?<![0-9a-f-])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-f-])", re.IGNORECASE)
_STATUS: Final = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?!\.?\d)", re.ASCII)
_ANSWER: Final = re.compile(r"\b([45]\d\d)(?=[ -]|$)", re.ASCII)
_END_OF_HEADERS: Final = re.compile(rb"(?:^|\r?\n)\r?\n")
_BLANK_LINE: Final = re.compile(rb"\r?\n[ \t]*\r?\n")
_UTF8_ESCAPE: Final = re.compile(r"\\x\{([0-9a-fA-F]{2,6})\}")  # RFC 6533, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A delivery report on one message of ours.

    ``notice_ids`` are the notices that it may be about, the most reliable first. ``address`` is the one that failed, as
    the report gives it: keep it in memory only. ``reply`` has addresses removed. ``tags`` are what may be tags in the
    address that the report was sent to (`bounce_address`).
    """

    notice_ids: tuple[str, ...]
    action: str
    status: str | None
    address: str | None
    code: int | None
    reply: str
    tags: tuple[str, ...] = ()

    @property
    def given_up(self) -> bool:
        """Whether the mail system gave up: a hard bounce, or a temporary error (4.4.1) that lasted for days."""
        return self.action == "failed"

    @property
    def delayed(self) -> bool:
        """Whether the mail system is still trying."""
        return self.action == "delayed"

    @property
    def address_is_dead(self) -> bool:
        """Whether it failed because the address does not exist."""
        return self.given_up and self.status in DEAD_ADDRESS


def read_report(message: bytes) -> Report | None:
    """Parse ``message``. None when it is not a delivery report, or too broken to read."""
    top = _part(message[:READ_AT_MOST])
    parts = [*_parts(top, _NESTED_AT_MOST)]
    status = next((part for part in parts if part.kind in _STATUS_TYPES), None)
    if status is None:
        return None
    groups = [_part(block).headers for block in _blocks(status.decoded())]
    recipients = [
        fields for fields in groups if any(name in fields for name in ("Final-Recipient", "Action", "Status"))
    ]
    if not recipients:
        return None
    worst = min(recipients, key=lambda fields: ("failed", "delayed", _action(fields)).index(_action(fields)))
    code, text = _diagnostic(worst)
    return Report(
        tags=tuple(dict.fromkeys(islice(_tags(top.headers), _IDS_AT_MOST))),
        notice_ids=tuple(dict.fromkeys(islice(_notice_ids(top.headers, parts, groups), _IDS_AT_MOST))),
        action=_action(worst),
        status=_status(worst),
        address=_address(worst),
        code=code,
        reply=text,
    )


def _tags(top: Message) -> Iterator[str]:
    """Only in the address that the report was sent to: its sender may have copied everything else from a reply."""
    for name in _SENT_TO:
        for value in _headers(top, name):
            yield from tags_in(value)


def _notice_ids(top: Message, parts: list["_Part"], groups: list[Message]) -> Iterator[str]:
    """Ids in the address that the report was sent to, in the envelope id, in the returned Message-ID, in References."""
    for name in _SENT_TO:
        for value in _headers(top, name):
            yield from _ids(value)
    for fields in groups:
        yield from _ids(_header(fields, "Original-Envelope-Id"))
    for part in parts:
        if part.kind in _RETURNED_TYPES:
            yield from _ids(_header(_part(part.decoded()).headers, "Message-ID"))
    for name in ("In-Reply-To", "References"):
        yield from _ids(_header(top, name))


def _ids(text: str) -> list[str]:
    return [found.lower() for found in _NOTICE_ID.findall(text)]


@dataclass(frozen=True, slots=True)
class _Part:
    """Headers and the octets after them. The standard library would decode the body with a charset that it guesses."""

    headers: Message
    body: bytes

    @property
    def kind(self) -> str:
        return self.headers.get_content_type()

    @property
    def boundary(self) -> bytes | None:
        """The boundary between the parts of a multipart message; None for other messages."""
        if not self.kind.startswith("multipart/") or len(str(self.headers["Content-Type"])) > _HEADER_AT_MOST:
            return None
        try:
            boundary = self.headers.get_boundary()
        except (ValueError, LookupError, MessageError):  # an unknown charset, a senseless parameter
            return None
        return boundary.encode("utf-8", "replace") if boundary else None

    def decoded(self) -> bytes:
        """The body without its transfer encoding; unchanged when the encoding is broken."""
        encoding = _header(self.headers, "Content-Transfer-Encoding").lower()
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
    """All parts of a multipart message, inner multiparts flattened. A returned message is not opened."""
    boundary = outer.boundary
    if boundary is None or depth == 0:
        return
    delimiter = re.compile(rb"(?:^|\n)--" + re.escape(boundary) + rb"(?:--)?[ \t]*\r?(?=\n|$)")
    for chunk in delimiter.split(outer.body, _PARTS_AT_MOST)[1:]:
        part = _part(chunk.removeprefix(b"\n"))
        yield part
        yield from _parts(part, depth - 1)


def _blocks(status: bytes) -> list[bytes]:
    """The report's groups of fields: one about the message, then one for each recipient."""
    return [block for block in _BLANK_LINE.split(status, _RECIPIENTS_AT_MOST) if block.strip()]


def _headers(message: Message, name: str) -> list[str]:
    """The values of all headers of this name, unfolded, cut to a maximum length, as UTF-8."""
    found = [value for key, value in message.raw_items() if key.lower() == name.lower()]
    texts = [value[:_HEADER_AT_MOST].encode("ascii", "surrogateescape").decode("utf-8", "replace") for value in found]
    return [" ".join(text.split()) for text in texts]


def _header(message: Message, name: str) -> str:
    """The value of the first header of this name, or ``""``."""
    return next(iter(_headers(message, name)), "")


def _action(fields: Message) -> str:
    """In lower case, without a comment. When it is missing, the class of the status decides."""
    action = _header(fields, "Action").lower().partition(" ")[0].partition("(")[0]
    if action:
        return action
    return {"5": "failed", "4": "delayed"}.get(_header(fields, "Status")[:1], "unknown")


def _status(fields: Message) -> str | None:
    """The enhanced status code. If it is vague (``5.0.0``), the one in the receiving server's answer."""
    found = _STATUS.search(_header(fields, "Status"))
    said = _STATUS.search(_header(fields, "Diagnostic-Code"))
    if said is not None and (found is None or (found[1] == said[1] and found[2] == "0")):
        return said[0]
    return found[0] if found is not None else None


def _address(fields: Message) -> str | None:
    """The address that failed; None when the report does not give it as an email address."""
    kind, _, value = _header(fields, "Final-Recipient").partition(";")
    address = value.strip().strip("<>")
    if kind.strip().lower() == "utf-8":
        address = _UTF8_ESCAPE.sub(lambda match: _character(match[1]), address)
    return address if "@" in address else None


def _character(code_point: str) -> str:
    try:
        return chr(int(code_point, 16))
    except ValueError:
        return ""


def _diagnostic(fields: Message) -> tuple[int | None, str]:
    """The SMTP code, if any, and the text of the answer, without addresses or their local parts."""
    kind, _, said = _header(fields, "Diagnostic-Code").partition(";")
    said = (said or kind).strip()
    code = _ANSWER.match(said)
    words = said[code.end() + 1 :] if code else said
    recipients = [_header(fields, name).partition(";")[2].strip() for name in ("Final-Recipient", "Original-Recipient")]
    hide = [*filter(None, (_address(fields), *recipients))]
    return (int(code[1]) if code else None), reply(Stage.BOUNCE, int(code[1]) if code else 0, words, hide=hide).text
