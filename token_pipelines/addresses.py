"""Which email addresses we write to, and their form in SMTP. Stricter than the RFCs: no quoting, no comments.

`mail` and `ledger` both use this module: a suppressed address must be recognised when an email is written to it.
"""

import contextlib
import re
import unicodedata
from functools import lru_cache
from itertools import groupby
from typing import Final

import idna

LOCAL_OCTETS: Final = 64  # RFC 5321, 4.5.3.1.1
_DOMAIN_OCTETS: Final = 255  # 4.5.3.1.2
PATH_OCTETS: Final = 254  # 4.5.3.1.3, without the angle brackets
_ATOM: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+")
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"})
_ORDINARY: Final = re.compile(r"[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*@(?:[a-z][a-z0-9]*\.)+[a-z]{2,}")
_ASCII_CAPITAL: Final = re.compile("[A-Z]")
_ORDINARY_OCTETS: Final = 63  # no label and no local part of an address so short can be too long


def valid_address(text: str) -> bool:
    r"""Whether ``text`` is one plain address. ``a@b.com>\r\nRSET`` is not; smtplib would cut it off and send."""
    try:
        wire_address(text)
    except ValueError:
        return False
    return True


def wire_address(text: str) -> str:
    """The address in the form for SMTP: an international domain in ASCII, the local part unchanged.

    Raises:
        ValueError: the address is not valid; the message does not repeat it.
    """
    if len(text) <= _ORDINARY_OCTETS and _ORDINARY.fullmatch(text) is not None:
        return text  # nearly all of them; a fast path, since each address is checked several times
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
    """The form in which addresses are compared: the same for spellings of one address, never for two addresses.

    Spellings differ in the case of ASCII letters, in how a domain is written, and in whether accents are characters of
    their own. Everything else that SMTP tells apart stays apart: a Kelvin sign is no k, though Unicode's tables make it
    one. Text that is not an address is treated in the same way. The form of a plain ASCII address must never change:
    ledgers hold hashes of it.
    """
    address = text.strip()
    if address.isascii():
        return address.lower()
    address = _composed(address)
    with contextlib.suppress(ValueError):
        address = wire_address(address)
    return _ASCII_CAPITAL.sub(_in_lower_case, address)


def _composed(text: str) -> str:
    """Letters and their accents in one character each (NFC), but no character replaced by another one.

    NFC also replaces each character that Unicode counts as a copy of another one: the Kelvin sign by K, the ohm sign by
    omega, a thousand ideographs.
    """
    parts = groupby(text, _is_copy)
    return "".join("".join(part) if copies else unicodedata.normalize("NFC", "".join(part)) for copies, part in parts)


def _is_copy(character: str) -> bool:
    """Whether the canonical decomposition of a character is one other character."""
    decomposition = unicodedata.decomposition(character)
    return decomposition != "" and " " not in decomposition and "<" not in decomposition


def _in_lower_case(match: re.Match[str]) -> str:
    """A capital with an accent that has no character in common with it is no ASCII letter: as É, it stays."""
    following = match.string[match.end() : match.end() + 1]
    return match[0] if following and unicodedata.combining(following) else match[0].lower()


@lru_cache(maxsize=4096)  # an international domain takes 50 microseconds, and colleagues share one
def _ascii_domain(domain: str) -> str:
    wire = domain
    if not domain.isascii() or "xn--" in domain.lower():
        try:
            # IDNA2008, after the mapping of UTS 46. Python's own codec follows IDNA2003, which turns ß into ss and
            # one sigma into another: faß.at became fass.at, which somebody else may own.
            wire = idna.encode(domain, uts46=True).decode("ascii")
        except UnicodeError:  # an invalid label: in DNS it could still exist, and belong to anyone
            wire = ""
    labels = wire.split(".")
    plain = len(wire) <= _DOMAIN_OCTETS and all(_LABEL.fullmatch(label) for label in labels)
    # One label is a typing mistake, except localhost; a last label of digits belongs to an IP address.
    if not plain or (len(labels) == 1 and wire != "localhost") or labels[-1].isdigit():
        msg = "the part after the @ is not a domain"
        raise ValueError(msg)
    return wire
