"""Encodes text for a message: quoted-printable bodies, encoded words in headers. Knows neither notices nor the config.

Written by hand because the standard library's ``EmailMessage`` takes about twenty times as long, and folds headers
differently from one Python patch release to the next. The tests check that ``EmailMessage`` decodes the same text.
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

_WORD_LIMIT: Final = 75  # RFC 2047, 2: length of an encoded word; its line may be one longer
_NEXT_LINE: Final = CRLF + " "
_OCTETS_WHEN_QUOTED: Final = 3  # =C3; when more than a sixth of the octets need it, base64 is shorter
_UNQUOTED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_QUOTED: Final = tuple(
    chr(octet) if octet in _UNQUOTED else "_" if octet == ord(" ") else f"={octet:02X}" for octet in range(256)
)
_BLANK_AT_A_LONG_LINES_END: Final = re.compile(rb"^(.{74})(=20|=09)\r\n", re.MULTILINE)


def transfer_encoded(text: str) -> tuple[bytes, bytes]:
    """Give the name of a transfer encoding, and the text in it: CRLF line ends, 7 bits, without ``--=_``.

    Text that RFC 2045, 2.7, calls ``7bit``, and that no relay needs to change, is left as it is: that is shorter and
    takes a third of the time. Other text becomes quoted-printable.
    """
    if text.isascii() and text.endswith("\n"):
        octets = text.encode()
        # Not 7bit; blanks that a relay may cut off; a possible boundary. A loop over these takes three times as long.
        if not (
            b"\0" in octets or b"\r" in octets or b" \n" in octets or b"\t\n" in octets or b"--=_" in octets
        ) and not _has_long_line(octets):
            return b"7bit", octets.replace(b"\n", b"\r\n")
    return b"quoted-printable", quoted_printable(text)


def quoted_printable(text: str) -> bytes:
    """Encode with CRLF line ends, in 7 bits and lines of at most 76; no line begins with ``=_``."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    # Adds a line break, removed again below: without one, b2a_qp breaks lines by a bare LF and leaves a final blank.
    lines = text.encode(errors="replace").replace(b"\n", b"\r\n") + b"\r\n"
    encoded = b2a_qp(lines)
    if b" \r\n" in lines or b"\t\r\n" in lines:  # b2a_qp encodes such a blank even if the line gets too long
        encoded = _BLANK_AT_A_LONG_LINES_END.sub(rb"\1=\r\n\2\r\n", encoded)
    return encoded[:-2]


def _has_long_line(octets: bytes) -> bool:
    """Whether a line is longer than ``LINE_LIMIT``. Looks for one line end per 998 octets, not for each."""
    start = 0
    while len(octets) - start > LINE_LIMIT:
        start = octets.rfind(b"\n", start, start + LINE_LIMIT + 1) + 1
        if start == 0:
            return True
    return False


@lru_cache(maxsize=256)  # subjects repeat between messages, and contain no personal data
def unstructured(header: str, text: str) -> str:
    """Give a header line such as a subject: plain, or in encoded words, folded. ``text`` is one clean line."""
    return f"{header}: {text if _plain(text) else _encoded_words(text, len(header) + 2)}"


def mailbox(header: str, name: str, address: str) -> str:
    """Give a header line with one display name, which may be empty, and one ASCII address."""
    if _plain(name):
        return f"{header}: {formataddr((name, address))}"
    return f"{header}: {_encoded_words(name, len(header) + 2)}{_NEXT_LINE}<{address}>"


def _plain(text: str) -> bool:
    """Whether the text needs no encoding. Text that looks like an encoded word does: a reader would decode it."""
    return text.isascii() and "=?" not in text


def _encoded_words(text: str, column: int) -> str:
    """Encode by RFC 2047, one word a line, each of whole characters. The first word begins at ``column``."""
    octets = text.encode()
    odd = sum(octet not in _UNQUOTED and octet != ord(" ") for octet in octets)
    encode: Callable[[str], str] = _base64_word if odd * 2 * _OCTETS_WHEN_QUOTED > len(octets) else _quoted_word
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
