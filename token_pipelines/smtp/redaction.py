"""Removes addresses and the login from relays' replies.

Replies are stored in the ledger and shown in the Dagster UI, where only the recipient's id may identify a person. An
address is found whole, encoded, split, and by the bare name before the @. The login is removed first, as exact text.
"""

import base64
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final
from urllib.parse import quote

LOGIN_PART: Final = "<login>"
"""Stands for a part of the login."""

_SHORTEST_PART: Final = 4  # characters of base64, below which a match says nothing
_INSTEAD: Final = "<address>"
_ADDRESS_LIKE: Final = re.compile(
    r"""<?[^\s<>()\[\]"',;:]+(?:[@\uff20\ufe6b]|%40)[^\s<>()\[\]"',;:]+>?""", re.IGNORECASE
)
_AT: Final = r"\s*(?:[@\uff20\ufe6b]|%40|[+=]40|=|&#64;|[(\[]at[)\]]|\bat\b)\s*"
"""What separates name and domain: in addresses, links, xtext (RFC 3461), VERP and HTML, and spelt out for people."""

_WORDS: Final = (
    "a access account address admin again an and are as at be been blocked box by can cannot client closed code "
    "command connection contact could data delivery denied disabled does domain email error exist exists expired "
    "failed for from full has help host http https id if in inbox info invalid is it later list local mail mailbox "
    "message messages more moved name network new no no-reply none noreply not of office ok on open or our over "
    "please policy postmaster queue queued quota receive received recipient rejected relay reply requested root "
    "sales security see sender sent server service smtp spam storage such support system temporarily temporary test "
    "that the this to too try unavailable unknown unrouteable us user users valid was we webmaster with you your"
)
"""Names that are also ordinary words of replies, or names of roles. Alone they identify nobody, and without them
``User unknown`` would be unreadable, so they stay. With a domain they are removed like any other name."""

_ORDINARY: Final = frozenset(_WORDS.split())


class Secrets:
    """The login of a relay, as a relay may repeat it: it is sent as base64, and as an answer to what was misunderstood.

    Exact substrings, at every stage and before anything else: the rules for addresses spare ordinary words, and a
    password may be one.
    """

    def __init__(self, username: str | None = None, password: str | None = None) -> None:
        """Without a password there is no secret."""
        found = {*_forms(username or "", password)} if password else set()
        self._forms = [form.encode() for form in sorted(found, key=len, reverse=True)]

    def removed_from(self, text: bytes) -> bytes:
        """The text without any part of the login."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, LOGIN_PART.encode())
        return text


def _forms(username: str, password: str) -> Iterator[str]:
    """The password as it is, in a URL and in base64: alone, in a login, and in the middle of something longer."""
    yield from {password, quote(password, safe="")}
    for line in (
        f"\0{username}\0{password}",
        f"{username}\0{username}\0{password}",
        f"{username}:{password}",
        password,
    ):
        encoded = base64.b64encode(line.encode()).decode()
        yield from (encoded, encoded.rstrip("="))
    for before in range(3):  # octets in front of it: the rest of the encoding depends on their number modulo three
        octets = b"\0" * before + password.encode()
        encoded = base64.b64encode(octets).decode()
        part = encoded[-(-before * 8 // 6) : len(octets) * 8 // 6]
        if len(part) >= _SHORTEST_PART:
            yield part


def readable(text: str) -> str:
    """The text on one line of visible characters. What cannot be seen is left out, so that it tears nothing apart."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


@lru_cache(maxsize=1024)
def _visible(character: str) -> str:
    if character.isspace():
        return " "
    return "" if not character.isprintable() or _DRAWN_AS_NOTHING.match(character) else character


_DRAWN_AS_NOTHING: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Marks, letters and a symbol that count as visible and are not: variation selectors, fillers, a joiner."""


def redacted(line: str, hide: Iterable[str] = ()) -> str:
    """Remove from a line everything that looks like an address, and everything in ``hide``: addresses or bare names.

    The name before the @ of a hidden address is removed too, as a whole word in any case, unless it is an ordinary
    word. A bare domain stays: it shows which mail system has the problem.
    """
    found = _perhaps_in(line, hide)
    for secret in found:
        if "@" in secret:
            line = _whole(secret).sub(_INSTEAD, line)
    if "@" in line or "%40" in line or not line.isascii():
        line = _ADDRESS_LIKE.sub(_INSTEAD, line)
    for secret in found:
        if (word := _word(_name(secret))) is not None:
            line = word.sub(_INSTEAD, line)
    return line


def _perhaps_in(line: str, hide: Iterable[str]) -> list[str]:
    """Those in ``hide`` that may occur in the line. Fast, since it runs for every message and rarely finds any."""
    if "%" in line:
        return [*filter(_name, hide)]
    lower = line.lower()
    found = [one for one in hide if one.partition("@")[0].partition("+")[0].strip('"').lower() in lower]
    return [*filter(_name, found)] if found else found


def _name(secret: str) -> str:
    """The name before the @ of an address; any other text is a name itself."""
    return secret[: secret.rfind("@")] if "@" in secret else secret


def _stem(name: str) -> str:
    """The name without the detail after its +, which mail systems strip before they look for the mailbox."""
    return name.strip('"').partition("+")[0] or name


@lru_cache(maxsize=64)  # the sender's is used for every message
def _whole(address: str) -> re.Pattern[str]:
    name, _, domain = address.rpartition("@")
    forms = _any_of(name, name.strip('"'), _stem(name))
    return re.compile(rf"<?(?:{forms}){_AT}{re.escape(domain)}>?", re.IGNORECASE)


@lru_cache(maxsize=64)
def _word(name: str) -> re.Pattern[str] | None:
    words = [word for word in {name, name.strip('"'), _stem(name)} if word and word.lower() not in _ORDINARY]
    if not words:
        return None
    # Inside a longer word, name, host or number it is not that person's name. Dots may follow: one ends a sentence,
    # Sendmail writes three.
    return re.compile(rf"(?<![\w.+-])<?(?:{_any_of(*words)})(?:\+[\w.+-]*)?>?(?![\w-]|\.\w)", re.IGNORECASE)


def _any_of(*words: str) -> str:
    """A pattern for these words, as they are and as encoded in a link; the longest first."""
    forms = {form for word in words if word for form in (word, quote(word, safe=""))}
    return "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
