"""The relay's own name for a message that it took: each kind of relay says it in its own way."""

import re
from typing import Final

_QUEUE_IDS: Final = (
    re.compile(r"queued as\s+<?([^\s<>;,]+)", re.IGNORECASE),  # Postfix
    re.compile(r"\bid=<?([^\s<>;,]+)"),  # Exim
    re.compile(r"\bInternalId=(\d+)", re.IGNORECASE),  # Exchange
    re.compile(r"(\S+) Message accepted for delivery", re.IGNORECASE),  # Sendmail, OpenSMTPD
    re.compile(r"\bqp (\d+)"),  # qmail
    re.compile(r"\bOK\s+\d+\s+(\S+) - gsmtp"),  # Gmail
    re.compile(r"\bqueued\s+\(?([\w.-]{6,})", re.IGNORECASE),  # Haraka
    re.compile(r"^(?:\d\.\d\.\d\s+)?ok:?\s+([\w.-]*\d[\w.-]*)", re.IGNORECASE),  # Amazon SES, and what is left
)


def queue_id_in(said: str) -> str | None:
    """The id in what a relay said after the final dot, where there is one that we know how to read."""
    for pattern in _QUEUE_IDS:
        if (match := pattern.search(said)) is not None:
            return match[1].rstrip(".)")
    return None
