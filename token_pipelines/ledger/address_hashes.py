"""Keyed hashes of addresses: the ledger stores them instead of addresses. The key never leaves the ledger."""

import hmac
import secrets as random_bytes
from functools import cached_property
from typing import Final

from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert

from token_pipelines.addresses import canonical
from token_pipelines.ledger.tables import secrets

ADDRESS_KEY: Final = "address_key"
ADDRESS_KEY_BYTES: Final = 32


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
        fresh = {"name": ADDRESS_KEY, "value": random_bytes.token_bytes(ADDRESS_KEY_BYTES)}
        with self._engine.begin() as connection:
            connection.execute(insert(secrets).values(fresh).on_conflict_do_nothing())
            return bytes(connection.execute(select(secrets.c.value).where(secrets.c.name == ADDRESS_KEY)).scalar_one())
