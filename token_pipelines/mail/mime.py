"""Text in the clothes of a message: quoted-printable bodies, encoded words in headers. Knows no notice and no config.

Written by hand because ``EmailMessage`` takes some twenty times as long, and folds differently between patch releases;
the tests hold every byte of this against it.
"""

import re
from base64 import b64encode
from binascii import b2a_qp
from collections.abc import Callable
from email.utils import formataddr
from functools import lru_cache
from typing import Final

CRLF: Final = "\r\n"

LINE_LIMIT: Final = 998
"""RFC 5322, 2.1.1: octets of a line, without its CRLF."""

_WORD_LIMIT: Final = 75  # RFC 2047, 2: an encoded word; the line that holds it may have one more
_NEXT_LINE: Final = CRLF + " "
_UNREADABLE: Final = 3  # in quoted form an octet becomes three; beyond one such octet in six, base64 is shorter
_AS_IT_STANDS: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_QUOTED: Final = tuple(
    chr(octet) if octet in _AS_IT_STANDS else "_" if octet == ord(" ") else f"={octet:02X}" for octet in range(256)
)
_BLANK_AT_A_LONG_LINES_END: Final = re.compile(rb"^(.{74})(=20|=09)\r\n", re.MULTILINE)


def transfer_encoded(text: str) -> tuple[bytes, bytes]:
    """The name of a transfer encoding, and the text in it: CRLF line ends, 7 bits, and no ``--=_``.

    As it stands where RFC 2045, 2.7, calls that ``7bit``, and no mail system has a reason to touch it: it is shorter,
    and takes a third of the time. Else in quoted-printable.
    """
    if text.isascii() and text.endswith("\n"):
        octets = text.encode()
        # Neither 7bit, nor blanks that a relay may cut off, nor what may be a boundary of ours. Not in a loop: a third.
        if not (
            b"\0" in octets or b"\r" in octets or b" \n" in octets or b"\t\n" in octets or b"--=_" in octets
        ) and not _has_long_line(octets):
            return b"7bit", octets.replace(b"\n", b"\r\n")
    return b"quoted-printable", quoted_printable(text)


def quoted_printable(text: str) -> bytes:
    """The text with CRLF line ends and lines of at most 76, in 7 bits; no line of it begins with ``=_``."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    # Ended by a line break of ours: without any, b2a_qp would break lines by a bare LF, and leave a blank at the end.
    lines = text.encode(errors="replace").replace(b"\n", b"\r\n") + b"\r\n"
    encoded = b2a_qp(lines)
    if b" \r\n" in lines or b"\t\r\n" in lines:  # b2a_qp encodes such a blank without looking at the line's length
        encoded = _BLANK_AT_A_LONG_LINES_END.sub(rb"\1=\r\n\2\r\n", encoded)
    return encoded[:-2]


def _has_long_line(octets: bytes) -> bool:
    """In great steps: from the last line end that is near enough to the next."""
    start = 0
    while len(octets) - start > LINE_LIMIT:
        start = octets.rfind(b"\n", start, start + LINE_LIMIT + 1) + 1
        if start == 0:
            return True
    return False


@lru_cache(maxsize=256)  # subjects repeat from message to message, and hold nothing of the recipient's
def unstructured(header: str, text: str) -> str:
    """A header line such as a subject: as it stands, or in encoded words, folded. ``text`` is one clean line."""
    return f"{header}: {text if _plain(text) else _encoded_words(text, len(header) + 2)}"


def mailbox(header: str, name: str, address: str) -> str:
    """A header line with one name, which may be empty, and one address in ASCII."""
    if _plain(name):
        return f"{header}: {formataddr((name, address))}"
    return f"{header}: {_encoded_words(name, len(header) + 2)}{_NEXT_LINE}<{address}>"


def _plain(text: str) -> bool:
    """Whether a reader sees what is written. What looks encoded is encoded, or it would be decoded."""
    return text.isascii() and "=?" not in text


def _encoded_words(text: str, column: int) -> str:
    """RFC 2047, one word a line, none of which ends inside a character; the first begins at that column."""
    octets = text.encode()
    odd = sum(octet not in _AS_IT_STANDS and octet != ord(" ") for octet in octets)
    encode: Callable[[str], str] = _base64_word if odd * 2 * _UNREADABLE > len(octets) else _quoted_word
    words: list[str] = []
    chunk = ""
    room = _WORD_LIMIT + 1 - column
    for character in text:
        if chunk and len(encode(chunk + character)) > room:
            words.append(encode(chunk))
            chunk, room = "", _WORD_LIMIT
        chunk += character
    return _NEXT_LINE.join([*words, encode(chunk)])


def _quoted_word(text: str) -> str:
    return f"=?utf-8?q?{''.join(_QUOTED[octet] for octet in text.encode())}?="


def _base64_word(text: str) -> str:
    return f"=?utf-8?b?{b64encode(text.encode()).decode()}?="
