"""Reads the plain text that older mail systems write instead of a delivery report: qmail, old Exim, Exchange, others.

`flufl.bounce` knows how these texts name the address that failed. It runs many patterns over every line, so it gets a
copy that we make: the text before the returned message, with a maximum length, in parts that are not nested. It takes
some reports of a delay for failures, so these are told apart here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from typing import Final

from flufl.bounce import all_failures

from token_pipelines.feedback.bounces.mime_parts import HEADER_AT_MOST, Part, first_value

_TEXT_AT_MOST: Final = 16 << 10
"""Octets of text, over all parts. A report's own words come first."""

_LINE_AT_MOST: Final = 300
"""Characters of a line. Some patterns need the square of it."""

_PARTS_AT_MOST: Final = 3
_REASON_AT_MOST: Final = 400
"""Characters after the address in which the reason stands."""

_MAIL_SYSTEM: Final = re.compile(
    r"mailer[-_. ]?daemon|postmaster|mail[-_. ]?(?:delivery|system|administrator|daemon)|system administrator"
    r"|delivery (?:subsystem|system|service)",
    re.IGNORECASE,
)
"""What a mail system calls itself in From. A person's vacation note may contain any words, also those of a report."""

_STILL_TRIED: Final = re.compile(
    r"not (?:yet )?been delivered|has been delayed|delivery (?:is )?delayed|will be retried|will (?:keep|continue)"
    r" trying|attempts will (?:be|continue)|warning message only|do not need to resend|no action is required",
    re.IGNORECASE,
)
_ARRIVED: Final = re.compile(
    r"success(?:fully|ful)? (?:deliver|relay)|was (?:delivered|relayed|read|displayed)|return receipt", re.IGNORECASE
)
_RETURNED: Final = re.compile(
    rb"^-+ .*(?:copy|original|returned|message (?:header|text|follows)).*$", re.IGNORECASE | re.MULTILINE
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TextReport:
    """What a text says. ``reason`` is what follows the address; it may hold addresses."""

    address: str
    is_failure: bool
    reason: str


def read_text(top: Part, parts: Sequence[Part]) -> TextReport | None:
    """Read a message that is no report by RFC 3464. None if it is not from a mail system, or names no address.

    Args:
        top: the message.
        parts: the parts of it; none if it has only one.
    """
    headers = top.headers
    if not _MAIL_SYSTEM.search(first_value(headers, "From")) and "X-Failed-Recipients" not in headers:
        return None
    texts = _texts(parts or [top])
    words = "\n".join(texts)
    if _ARRIVED.search(words):
        return None
    delayed, failed = all_failures(_copy(top, texts))
    # An alias has several addresses behind it. Whichever is taken, it is another one than we wrote to, or that one.
    named = sorted(address for address in failed or delayed if b"@" in address)
    if not named:
        return None
    address = named[0].decode("ascii", "replace")
    _, _, reason = words.partition(address)
    is_failure = bool(failed) and not _STILL_TRIED.search(words)
    return TextReport(address=address, is_failure=is_failure, reason=" ".join(reason[:_REASON_AT_MOST].split()))


def _texts(parts: Sequence[Part]) -> list[str]:
    """The report's own words, of each part, without the returned message."""
    found: list[str] = []
    left = _TEXT_AT_MOST
    for part in parts:
        if part.kind != "text/plain" or len(found) == _PARTS_AT_MOST:
            continue
        data = part.decoded()[:left]
        end = _RETURNED.search(data)
        lines = (data if end is None else data[: end.end()]).decode("ascii", "replace").splitlines()
        found.append("\n".join(line[:_LINE_AT_MOST] for line in lines))
        left -= len(data)
    return found


def _copy(top: Part, texts: Sequence[str]) -> Message:
    """The message as `flufl.bounce` gets it: the headers that it looks at, and one part for each text."""
    copy = Message()
    for name in ("From", "Subject", "X-Failed-Recipients"):
        if name in top.headers:
            copy[name] = first_value(top.headers, name).encode("ascii", "replace").decode()[:HEADER_AT_MOST]
    if top.boundary is None:
        copy.set_payload("\n".join(texts))
        return copy
    copy["Content-Type"] = "multipart/mixed"
    for text in texts:
        part = Message()
        part["Content-Type"] = "text/plain"
        part["Content-Description"] = "Notification"  # Postfix's; without it, its text is not looked at
        part.set_payload(text)
        copy.attach(part)
    copy.attach(Message())  # stands for the returned message
    return copy
