"""Which email addresses we put on the wire. Stricter than the RFCs: no quoting, no comments, no literals."""

import email.policy
import re
import unicodedata
from typing import Final

from token_pipelines.errors import ConfigError

_LOCAL_OCTETS: Final = 64  # RFC 5321, 4.5.3.1.1
_DOMAIN_OCTETS: Final = 255  # 4.5.3.1.2
_PATH_OCTETS: Final = 254  # 4.5.3.1.3, without the angle brackets
_ATOM: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+")
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"})
_ORDINARY: Final = re.compile(r"[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*@(?:[a-z][a-z0-9]*\.)+[a-z]{2,}")
_ORDINARY_OCTETS: Final = 63  # no label and no local part of an address so short can be too long


def valid_address(text: str) -> bool:
    r"""Whether ``text`` is one plain address. ``a@b.com>\r\nRSET`` is not, though smtplib would cut it and send."""
    try:
        wire_address(text)
    except ValueError:
        return False
    return True


def wire_address(text: str) -> str:
    """The address as SMTP says it: an international domain in its ASCII form, the local part as it is.

    Raises:
        ValueError: the address is not valid; the message does not repeat it.
    """
    if len(text) <= _ORDINARY_OCTETS and _ORDINARY.fullmatch(text) is not None:
        return text  # nearly all of them, and each is asked about several times on its way
    local, at, domain = text.partition("@")
    if not at or "@" in domain or len(text) > _LOCAL_OCTETS + _DOMAIN_OCTETS:
        msg = "not one address: exactly one @ is needed"
        raise ValueError(msg)
    if any(unicodedata.category(character) in _INVISIBLE for character in text):
        msg = "an address holds no blanks, control or invisible characters"
        raise ValueError(msg)
    if len(local.encode()) > _LOCAL_OCTETS or not all(_ATOM.fullmatch(atom) for atom in local.split(".")):
        msg = "the part before the @ is not valid"
        raise ValueError(msg)
    ascii_domain = _ascii_domain(domain)
    if len(local.encode()) + 1 + len(ascii_domain) > _PATH_OCTETS:
        msg = "the address is too long"
        raise ValueError(msg)
    return f"{local}@{ascii_domain}"


def parse_mailbox(text: str, key: str) -> tuple[str, str]:
    """``Example Registry <noreply@example.org>`` as display name and address; ``key`` names it in the error.

    Raises:
        ConfigError: it is not one name and one valid address in ASCII.
    """
    cure = (
        f'{key} must be one address, like "Example Registry <noreply@example.org>"; put a name with a comma in quotes.'
    )
    try:
        header = email.policy.default.header_factory("From", text)
        (found,) = header.addresses
        address = wire_address(f"{found.username}@{found.domain}")
    except (ValueError, LookupError, AttributeError):
        raise ConfigError(cure) from None
    is_group = header.groups[0].display_name is not None
    if header.defects or is_group or not address.isascii():
        raise ConfigError(cure)
    return found.display_name, address


def _ascii_domain(domain: str) -> str:
    try:
        wire = domain if domain.isascii() else domain.encode("idna").decode("ascii")
    except UnicodeError:
        wire = ""
    labels = wire.split(".")
    plain = len(wire) <= _DOMAIN_OCTETS and all(_LABEL.fullmatch(label) for label in labels)
    # One label is a typing mistake, save for the relay's own machine; digits at the end are an IP address.
    if not plain or (len(labels) == 1 and wire != "localhost") or labels[-1].isdigit():
        msg = "the part after the @ is not a domain"
        raise ValueError(msg)
    return wire
