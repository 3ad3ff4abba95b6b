"""One message to one address: `mail` makes it and `smtp` sends it. Here, so that neither imports the other."""

import re
from dataclasses import InitVar, dataclass
from typing import Final

from token_pipelines.addresses import valid_address

_ENVID: Final = re.compile(r"[!-*,-<>-~]{1,100}")  # RFC 3461, 4.4: xtext, without what would need encoding


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """One message to one address, ready to send. Addresses are in wire form; lines of ``data`` end in CRLF.

    ``envid`` identifies the message in delivery reports, if the relay offers DSN. ``body_from`` is the offset of a body
    whose line ends were checked when it was made; not checking them again saves a tenth of the time to write an email.

    Raises:
        ValueError: an address is not valid, or a line break is bare. smtplib would cut such an address off and send
            to the rest; a relay may read a bare line break and a dot as the end of the message.
    """

    sender: str
    recipient: str
    data: bytes
    envid: str | None = None
    body_from: InitVar[int | None] = None

    def __post_init__(self, body_from: int | None) -> None:
        """Refuse everything that could end an SMTP command early."""
        if not valid_address(self.sender) or not valid_address(self.recipient):
            msg = "an envelope needs valid addresses"
            raise ValueError(msg)
        if self.envid is not None and _ENVID.fullmatch(self.envid) is None:
            msg = "an envelope's id is plain ASCII"
            raise ValueError(msg)
        without = self.data[:body_from].replace(b"\r\n", b"")  # takes a quarter of the time of counting each kind
        if b"\n" in without or b"\r" in without:
            msg = "an envelope's lines end in CRLF"
            raise ValueError(msg)
