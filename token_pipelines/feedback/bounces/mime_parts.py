"""The parts of a message and their headers, for input that cannot be trusted.

Parts are cut out by their boundaries, and only headers go through the standard library's parser: that takes linear time
and does not recurse.
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
from typing import Final

HEADER_AT_MOST: Final = 2000
"""Characters of a header that are read. The standard library takes a day to parse a parameter list of 1 MB."""

_NESTED_AT_MOST: Final = 4  # levels of multipart; a gateway that adds a footer adds one
_PARTS_AT_MOST: Final = 50
_GROUPS_AT_MOST: Final = 100
_END_OF_HEADERS: Final = re.compile(rb"(?:^|\r?\n)\r?\n")
_BLANK_LINE: Final = re.compile(rb"\r?\n[ \t]*\r?\n")
_BLANK_BEFORE_COLON: Final = re.compile(rb"^([!-9;-~]+)[ \t]+:", re.MULTILINE)
"""RFC 5322, 4.5 lets old software write it. The standard library would take such a line for the end of the headers."""


@dataclass(frozen=True, slots=True)
class Part:
    """Headers and the octets after them. The standard library would decode the body with a charset that it guesses."""

    headers: Message
    body: bytes

    @property
    def kind(self) -> str:
        """The content type."""
        return self.headers.get_content_type()

    @property
    def boundary(self) -> bytes | None:
        """The boundary between the parts of a multipart message; None for other messages."""
        if not self.kind.startswith("multipart/") or len(str(self.headers["Content-Type"])) > HEADER_AT_MOST:
            return None
        try:
            boundary = self.headers.get_boundary()
        except (ValueError, LookupError, MessageError):  # an unknown charset, a senseless parameter
            return None
        return boundary.encode("utf-8", "replace") if boundary else None

    def decoded(self) -> bytes:
        """The body without its transfer encoding; unchanged when the encoding is broken."""
        encoding = first_value(self.headers, "Content-Transfer-Encoding").lower()
        if encoding == "quoted-printable":
            return quopri.decodestring(self.body)
        if encoding == "base64":
            try:
                return base64.b64decode(self.body)
            except binascii.Error:
                return self.body
        return self.body


def split_head(data: bytes) -> bytes:
    """The headers of a message."""
    end = _END_OF_HEADERS.search(data)
    return data if end is None else data[: end.start()]


def read_part(data: bytes) -> Part:
    """A message or a part of one: headers, an empty line, the body."""
    end = _END_OF_HEADERS.search(data)
    head, body = (data[: end.start()], data[end.end() :]) if end is not None else (data, b"")
    return Part(BytesHeaderParser().parsebytes(_BLANK_BEFORE_COLON.sub(rb"\1:", head)), body)


def parts_of(outer: Part) -> Iterator[Part]:
    """All parts of a multipart message, inner multiparts flattened. A returned message is not opened."""
    yield from _parts(outer, _NESTED_AT_MOST)


def _parts(outer: Part, depth: int) -> Iterator[Part]:
    boundary = outer.boundary
    if boundary is None or depth == 0:
        return
    delimiter = re.compile(rb"(?:^|\n)--" + re.escape(boundary) + rb"(?:--)?[ \t]*\r?(?=\n|$)")
    for chunk in delimiter.split(outer.body, _PARTS_AT_MOST)[1:]:
        part = read_part(chunk.removeprefix(b"\n"))
        yield part
        yield from _parts(part, depth - 1)


def split_groups(body: bytes) -> list[bytes]:
    """The groups of fields in a delivery report: one about the message, then one for each recipient."""
    return [group for group in _BLANK_LINE.split(body, _GROUPS_AT_MOST) if group.strip()]


def values(headers: Message, name: str) -> list[str]:
    """The values of all headers of this name, unfolded, cut to a maximum length, as UTF-8."""
    found = [value for key, value in headers.raw_items() if key.lower() == name.lower()]
    texts = [value[:HEADER_AT_MOST].encode("ascii", "surrogateescape").decode("utf-8", "replace") for value in found]
    return [" ".join(text.split()) for text in texts]


def first_value(headers: Message, name: str) -> str:
    """The value of the first header of this name, or ``""``."""
    return next(iter(values(headers, name)), "")
