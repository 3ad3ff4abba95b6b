"""What `source check` may show of people: the first letter of a name or an address, and no more."""

from typing import Final

from token_pipelines.addresses import valid_address
from token_pipelines.mail.names import clean

HIDDEN: Final = "…"
SHOWN_LIMIT: Final = 40


def mask_address(email: str) -> str:
    """``a…@….org``: the first letter and the top-level domain; ``…`` if it is not an address. Empty stays empty."""
    if not email:
        return ""
    if not valid_address(email):
        return HIDDEN
    local, _, domain = email.partition("@")
    first = local[0] if local[0].isalnum() else ""
    suffix = domain.rpartition(".")[2] if "." in domain else ""
    return f"{first}{HIDDEN}@{HIDDEN}.{suffix}" if suffix else f"{first}{HIDDEN}@{HIDDEN}"


def mask_name(name: str) -> str:
    """``A…``: enough to see that it is the right column. Empty stays empty."""
    cleaned = clean(name, SHOWN_LIMIT, stand_in="")
    return f"{cleaned[0] if cleaned[0].isalnum() else ''}{HIDDEN}" if cleaned else ""


def without_address(text: str) -> str:
    """The text, or ``…`` if it contains an @: people put addresses into the names of tokens too."""
    return HIDDEN if any(at in text for at in "@\uff20\ufe6b") else text
