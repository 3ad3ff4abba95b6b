"""Which email addresses we put on the wire, and in which form. Stricter than the RFCs: no quoting, no comments.

Below the mail and the ledger, which must agree on it: an address that is suppressed is one that is not mailed.
"""

import contextlib
import re
import unicodedata
from functools import lru_cache
from typing import Final

import idna

LOCAL_OCTETS: Final = 64  # RFC 5321, 4.5.3.1.1
_DOMAIN_OCTETS: Final = 255  # 4.5.3.1.2
PATH_OCTETS: Final = 254  # 4.5.3.1.3, without the angle brackets
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
    if not at or "@" in domain or len(text) > LOCAL_OCTETS + _DOMAIN_OCTETS:
        msg = "not one address: exactly one @ is needed"
        raise ValueError(msg)
    if any(unicodedata.category(character) in _INVISIBLE for character in text):
        msg = "an address holds no blanks, control or invisible characters"
        raise ValueError(msg)
    if len(local.encode()) > LOCAL_OCTETS or not all(_ATOM.fullmatch(atom) for atom in local.split(".")):
        msg = "the part before the @ is not valid"
        raise ValueError(msg)
    ascii_domain = _ascii_domain(domain)
    if len(local.encode()) + 1 + len(ascii_domain) > PATH_OCTETS:
        msg = "the address is too long"
        raise ValueError(msg)
    return f"{local}@{ascii_domain}"


def canonical(text: str) -> str:
    """The one form under which an address is known: as on the wire, in lower case, however its domain was spelt.

    What is no address stays as it is, in lower case. The form of a plain ASCII address never changes: ledgers hold
    hashes of it.
    """
    address = text.strip()
    if not address.isascii():
        with contextlib.suppress(ValueError):
            address = wire_address(address)
    return address.lower()


@lru_cache(maxsize=4096)  # an international domain takes 50 microseconds, and a company's people share one
def _ascii_domain(domain: str) -> str:
    wire = domain
    if not domain.isascii() or "xn--" in domain.lower():
        try:
            # IDNA2008, after the mapping of UTS 46. Python's own codec follows IDNA2003, which takes ß for ss and
            # one sigma for another: faß.at became fass.at, and somebody else would read the mail.
            wire = idna.encode(domain, uts46=True).decode("ascii")
        except UnicodeError:  # a label that is not valid may be looked up, and belong to anyone
            wire = ""
    labels = wire.split(".")
    plain = len(wire) <= _DOMAIN_OCTETS and all(_LABEL.fullmatch(label) for label in labels)
    # One label is a typing mistake, save for the relay's own machine; digits at the end are an IP address.
    if not plain or (len(labels) == 1 and wire != "localhost") or labels[-1].isdigit():
        msg = "the part after the @ is not a domain"
        raise ValueError(msg)
    return wire
