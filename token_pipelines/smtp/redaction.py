"""Taking addresses out of what relays say: in full, encoded, torn apart, and the bare name before the @.

Replies are kept in the ledger and shown in the Dagster UI; whom they are about is told by the recipient's id alone.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import quote

_INSTEAD: Final = "<address>"
_ADDRESS_LIKE: Final = re.compile(r"""<?[^\s<>()\[\]"',;:]+(?:@|%40)[^\s<>()\[\]"',;:]+>?""", re.IGNORECASE)
_AT: Final = r"\s*(?:@|%40|[+=]40|=|&#64;|[(\[]at[)\]]|\bat\b)\s*"
"""What stands between name and domain: in addresses, in links, in xtext (RFC 3461), in VERP, in HTML and for people."""

_WORDS: Final = (
    "a access account address admin again an and are as at be been blocked box by can cannot client closed code "
    "command connection contact could data delivery denied disabled does domain email error exist exists expired "
    "failed for from full has help host http https id if in inbox info invalid is it later list local mail mailbox "
    "message messages more moved name network new no no-reply none noreply not of office ok on open or our over "
    "please policy postmaster queue queued quota receive received recipient rejected relay reply requested root "
    "sales security see sender sent server service smtp spam storage such support system temporarily temporary test "
    "that the this to too try unavailable unknown unrouteable us user users valid was we webmaster with you your"
)
"""Names before an @ that are also the words that replies are made of, or a role's: by themselves they tell of nobody,
and without them ``User unknown`` could not be read. With their domain they go like any other."""

_ORDINARY: Final = frozenset(_WORDS.split())


def redacted(line: str, hide: Iterable[str] = ()) -> str:
    """A line without anything that looks like an address, and without those in ``hide``, addresses or bare names.

    Of a hidden address the name before its @ goes too, as a whole word in any case, unless it is an ordinary word. A
    bare domain stays: it tells which mail system is in trouble.
    """
    found = _perhaps_in(line, hide)
    for secret in found:
        if "@" in secret:
            line = _whole(secret).sub(_INSTEAD, line)
    if "@" in line or "%40" in line:
        line = _ADDRESS_LIKE.sub(_INSTEAD, line)
    for secret in found:
        if (word := _word(_name(secret))) is not None:
            line = word.sub(_INSTEAD, line)
    return line


def _perhaps_in(line: str, hide: Iterable[str]) -> list[str]:
    """Those of which a part may be in there. Asked for every message that is sent, and nearly always in vain."""
    if "%" in line:
        return [*filter(_name, hide)]
    lower = line.lower()
    found = [one for one in hide if one.partition("@")[0].partition("+")[0].strip('"').lower() in lower]
    return [*filter(_name, found)] if found else found


def _name(secret: str) -> str:
    """The name before an address's @; anything else is a name as it is."""
    return secret[: secret.rfind("@")] if "@" in secret else secret


def _stem(name: str) -> str:
    """The name without the detail after its +, which mail systems strip before they look for the mailbox."""
    return name.strip('"').partition("+")[0] or name


@lru_cache(maxsize=64)  # the sender's is wanted again and again
def _whole(address: str) -> re.Pattern[str]:
    name, _, domain = address.rpartition("@")
    forms = _any_of(name, name.strip('"'), _stem(name))
    return re.compile(rf"<?(?:{forms}){_AT}{re.escape(domain)}>?", re.IGNORECASE)


@lru_cache(maxsize=64)
def _word(name: str) -> re.Pattern[str] | None:
    words = [word for word in {name, name.strip('"'), _stem(name)} if word and word.lower() not in _ORDINARY]
    if not words:
        return None
    # Part of a longer word, name, host or number it is not that person's name. Three dots are Sendmail's, one ends
    # a sentence.
    return re.compile(rf"(?<![\w.+-])<?(?:{_any_of(*words)})(?:\+[\w.+-]*)?>?(?![\w-]|\.\w)", re.IGNORECASE)


def _any_of(*words: str) -> str:
    """A pattern for these, as they are and as they stand in a link; the longest first."""
    forms = {form for word in words if word for form in (word, quote(word, safe=""))}
    return "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
