"""The tag in the envelope sender: it names a notice, and proves that who writes to it has seen the email's envelope.

A Message-ID is public: replies, forwards and list archives carry it. The envelope sender is not: only the mail systems
on the way and the recipient's own mailbox see it. So only a report that arrives at this address may suppress anybody.
`mail` writes the address and `feedback` reads it.
"""

import base64
import hmac
import re
import uuid
from typing import Final

TAG_LENGTH: Final = 39
"""Characters of a tag: 16 octets of a notice's id and 8 of its MAC, five bits each."""

_MAC_OCTETS: Final = 8  # a forger may try as often as he can send mail
_ID_OCTETS: Final = 16
# Mail systems put addresses into lower case, so a tag has letters of one case only. `base64` wants its padding back.
_TAG: Final = re.compile(rf"(?<![a-z2-7])[a-z2-7]{{{TAG_LENGTH}}}(?![a-z2-7])", re.IGNORECASE | re.ASCII)


def tag(notice_id: str, key: bytes) -> str:
    """The tag of a notice: its id, which is a UUID, and the MAC of this id."""
    octets = uuid.UUID(notice_id).bytes
    return base64.b32encode(octets + _mac(octets, key)).decode("ascii").rstrip("=").lower()


def tags_in(text: str) -> list[str]:
    """Everything in a text that has the form of a tag. `proven` says which of them are real."""
    return [found.lower() for found in _TAG.findall(text)]


def proven(found: str, key: bytes) -> str | None:
    """The notice whose tag this is; None if it was not made with this key."""
    octets = base64.b32decode(found.upper() + "=")
    identity, mac = octets[:_ID_OCTETS], octets[_ID_OCTETS:]
    return str(uuid.UUID(bytes=identity)) if hmac.compare_digest(mac, _mac(identity, key)) else None


def _mac(octets: bytes, key: bytes) -> bytes:
    return hmac.digest(key, octets, "sha256")[:_MAC_OCTETS]
