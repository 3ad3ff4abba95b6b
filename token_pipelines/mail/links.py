"""The operator's link templates, filled in. Whatever is filled in is percent-encoded, so it cannot leave its place."""

from functools import lru_cache
from typing import Final
from urllib.parse import quote

from token_pipelines.config import Links
from token_pipelines.errors import ConfigError

_URL_CHARACTERS: Final = "%:/?#[]@!$&'()*+,;=~"  # RFC 3986; the rest of a template is percent-encoded
_TEMPLATE_LIMIT: Final = 500  # with an id in it, it must still fit into a header line of 998


def check(links: Links) -> None:
    """Refuse link templates that no email could fill in.

    Raises:
        ConfigError: naming the key and the cure.
    """
    for key in ("renew", "manage", "unsubscribe"):
        template: str | None = getattr(links, key)
        if template is None:
            continue
        if key != "renew" and "{token_id}" in template:
            msg = f"email.links.{key} cannot hold {{token_id}}, since one email speaks of several tokens; remove it."
            raise ConfigError(msg)
        if len(template) > _TEMPLATE_LIMIT:
            msg = f"email.links.{key} is longer than {_TEMPLATE_LIMIT} characters; shorten it."
            raise ConfigError(msg)


def fill(template: str, *, recipient_id: str, token_id: str = "") -> str:
    """The link in ASCII, with the ids in place of ``{recipient_id}`` and ``{token_id}``."""
    first, *pieces = _encoded_pieces(template)
    filled = [first]
    for piece in pieces:
        value = token_id if piece[0] == "t" else recipient_id
        plain = value.isascii() and value.isalnum()  # most ids are numbers, and quoting takes its time
        filled.append(value if plain else quote(value, safe="", errors="replace"))
        filled.append(piece[1:])
    return "".join(filled)


@lru_cache(maxsize=64)  # an operator has three
def _encoded_pieces(template: str) -> list[str]:
    """The template split at its fields; each piece but the first begins with ``t`` or ``r`` for the field before it."""
    pieces = template.replace("{token_id}", "\0t").replace("{recipient_id}", "\0r").split("\0")
    return [quote(piece, safe=_URL_CHARACTERS, errors="replace") for piece in pieces]
