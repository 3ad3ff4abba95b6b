"""Fills in the operator's link templates. Values are percent-encoded, so an id cannot change the rest of the URL."""

from functools import lru_cache
from typing import Final
from urllib.parse import quote

from token_pipelines.config import Links
from token_pipelines.errors import ConfigError

_URL_CHARACTERS: Final = "%:/?#[]@!$&'()*+,;=~"  # RFC 3986; other characters of a template are percent-encoded
_TEMPLATE_LIMIT: Final = 500  # with an id filled in, it must fit into a header line of 998


def check(links: Links) -> None:
    """Refuse link templates that cannot be filled in.

    Raises:
        ConfigError: naming the key and the cure.
    """
    for key in ("renew", "manage", "unsubscribe"):
        template: str | None = getattr(links, key)
        if template is None:
            continue
        if key != "renew" and "{token_id}" in template:
            msg = f"email.links.{key} cannot hold {{token_id}}, since one email is about several tokens; remove it."
            raise ConfigError(msg)
        if len(template) > _TEMPLATE_LIMIT:
            msg = f"email.links.{key} is longer than {_TEMPLATE_LIMIT} characters; shorten it."
            raise ConfigError(msg)


def fill(template: str, *, recipient_id: str, token_id: str = "") -> str:
    """Give the link in ASCII, with the ids in place of ``{recipient_id}`` and ``{token_id}``."""
    first, *pieces = _encoded_pieces(template)
    filled = [first]
    for piece in pieces:
        value = token_id if piece[0] == "t" else recipient_id
        plain = value.isascii() and value.isalnum()  # most ids are numbers, and quoting is slow
        filled.append(value if plain else quote(value, safe="", errors="replace"))
        filled.append(piece[1:])
    return "".join(filled)


@lru_cache(maxsize=64)  # an operator has at most three
def _encoded_pieces(template: str) -> list[str]:
    """Split the template at its fields. Each piece but the first begins with its field's ``t`` or ``r``."""
    pieces = template.replace("{token_id}", "\0t").replace("{recipient_id}", "\0r").split("\0")
    return [quote(piece, safe=_URL_CHARACTERS, errors="replace") for piece in pieces]
