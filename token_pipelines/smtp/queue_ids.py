"""The relay's queue id of a message that it accepted. Each kind of relay writes it differently."""

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
    re.compile(r"^(?:\d\.\d\.\d\s+)?ok:?\s+([\w.-]*\d[\w.-]*)", re.IGNORECASE),  # Amazon SES, and others
)


def queue_id_in(said: str) -> str | None:
    """The queue id in a relay's answer to the final dot; None if there is none that we can read."""
    for pattern in _QUEUE_IDS:
        if (match := pattern.search(said)) is not None:
            return match[1].rstrip(".)")
    return None
