"""Keyed hashes of addresses: the ledger stores them instead of addresses. The key never leaves the ledger."""

import hmac
from functools import cached_property
from typing import Final

from sqlalchemy import Engine

from token_pipelines.addresses import canonical
from token_pipelines.ledger.stored_keys import stored_key

ADDRESS_KEY: Final = "address_key"


class AddressHasher:
    """Hashes addresses with the key of one ledger. The key is created when it is first needed."""

    def __init__(self, engine: Engine) -> None:
        """Use the key of the ledger that ``engine`` reaches."""
        self._engine = engine

    def __call__(self, address: str) -> bytes:
        """The keyed hash of an address, the same for every spelling of it."""
        # A delivery report may give any text as an address, even lone surrogates.
        return hmac.digest(self._key, canonical(address).encode(errors="replace"), "sha256")

    @cached_property
    def _key(self) -> bytes:
        return stored_key(self._engine, ADDRESS_KEY)
