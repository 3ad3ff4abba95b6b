"""Keyed hashes of addresses: the ledger stores them instead of addresses, and drops them when no tier can need them.

A hash is as good as its key is secret: addresses can be guessed, so whoever has the key can test each guess. The key of
the environment is in no dump of the ledger. The ledger's own key, the default, lies beside the hashes.
"""

import hmac
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import Final

from sqlalchemy import Engine, func, select, update

from token_pipelines.addresses import canonical
from token_pipelines.ledger.stored_keys import find_key, stored_key
from token_pipelines.ledger.tables import attempts, notice_tokens

ADDRESS_KEY: Final = "address_key"

_KEY_ID_OCTETS: Final = 4
_HASH_OCTETS: Final = 32


class AddressHasher:
    """Hashes addresses for one ledger. Hashes of a key from the environment begin with the key's id.

    Hashes of the ledger's own key have none, as in ledgers that had no other key.
    """

    def __init__(self, engine: Engine, keys: Sequence[bytes] = ()) -> None:
        """Use these keys of the environment, the present one first, and the key of the ledger that ``engine`` reaches.

        Without keys of the environment the ledger's own is used, and created when it is first needed. With them it is
        still known, if there is one, for what was hashed with it.
        """
        self._engine = engine
        self._from_environment = {_key_id(key): key for key in keys}

    def __call__(self, address: str) -> bytes:
        """The keyed hash of an address with the present key, the same for every spelling of it."""
        return self.known(address)[0]

    def known(self, address: str) -> tuple[bytes, ...]:
        """The hashes of an address with every key that is known, the present one first."""
        # A delivery report may give any text as an address, even lone surrogates.
        text = canonical(address).encode(errors="replace")
        return tuple(key_id + hmac.digest(key, text, "sha256") for key_id, key in self._keys.items())

    def knows_key_of(self, address_hash: bytes) -> bool:
        """Whether this hash was made with a key that is known. If not, nobody can tell whose it is."""
        return address_hash[:-_HASH_OCTETS] in self._keys

    def drop_old(self, *, expired_before: datetime, tried_before: datetime) -> int:
        """Drop the hashes of attempts whose tokens have all expired before an instant. Returns how many.

        Args:
            expired_before: no tier can be due any more for a token that expired earlier.
            tried_before: such a token was last written about before this instant.
        """
        latest = select(func.max(notice_tokens.c.expires_at)).where(notice_tokens.c.notice_id == attempts.c.notice_id)
        old = (attempts.c.address_hash.is_not(None), attempts.c.at < tried_before)
        statement = update(attempts).where(*old, latest.scalar_subquery() < expired_before).values(address_hash=None)
        with self._engine.begin() as connection:
            return connection.execute(statement).rowcount

    @cached_property
    def _keys(self) -> dict[bytes, bytes]:
        """Every known key by its id, the present one first."""
        if not self._from_environment:
            return {b"": stored_key(self._engine, ADDRESS_KEY)}
        stored = find_key(self._engine, ADDRESS_KEY)
        return self._from_environment | ({} if stored is None else {b"": stored})


def _key_id(key: bytes) -> bytes:
    return hmac.digest(key, b"id of a key of address hashes", "sha256")[:_KEY_ID_OCTETS]
