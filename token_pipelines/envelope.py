"""One message to one address: what `mail` makes and `smtp` sends. Below both, so that neither needs the other."""

import re
from dataclasses import InitVar, dataclass
from typing import Final

from token_pipelines.addresses import valid_address

_ENVID: Final = re.compile(r"[!-*,-<>-~]{1,100}")  # RFC 3461, 4.4: xtext, without what would need encoding


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """One message to one address, ready to send. Addresses are in wire form; lines of ``data`` end in CRLF.

    ``envid`` is what a delivery report will call the message, where the relay offers DSN. ``body_from`` is where a body
    begins whose line ends its maker has checked: they are not checked again, which saves a tenth of writing an email.

    Raises:
        ValueError: an address is not valid, or a line break is bare. smtplib would cut such an address and send to
            what is left; a relay may take a bare line break and a dot for the end of the message.
    """

    sender: str
    recipient: str
    data: bytes
    envid: str | None = None
    body_from: InitVar[int | None] = None

    def __post_init__(self, body_from: int | None) -> None:
        """Nothing that could end an SMTP command early gets this far."""
        if not valid_address(self.sender) or not valid_address(self.recipient):
            msg = "an envelope needs valid addresses"
            raise ValueError(msg)
        if self.envid is not None and _ENVID.fullmatch(self.envid) is None:
            msg = "an envelope's id is plain ASCII"
            raise ValueError(msg)
        without = self.data[:body_from].replace(b"\r\n", b"")  # a quarter of the time of counting each
        if b"\n" in without or b"\r" in without:
            msg = "an envelope's lines end in CRLF"
            raise ValueError(msg)
