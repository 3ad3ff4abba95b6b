"""Advisory locks. Postgres shares their keys within a database, and several ledgers may be in one database."""

import hashlib
from typing import Final

from token_pipelines.ledger.tables import SCHEMA

MIGRATION_LOCK: Final = 0x746F6B656E31
"""One process migrates at a time ("token1" in ASCII)."""

PLANNING_LOCK: Final = 0x746F6B656E32
"""Planning takes it exclusively, claims share it ("token2" in ASCII)."""

BOUNCES_LOCK: Final = 0x746F6B656E33
"""One process reads bounces at a time ("token3" in ASCII)."""

_KEY_BYTES: Final = 8


def lock_key(lock: int, schema: str) -> int:
    """The key of a lock for the ledger in this schema. For a single pipeline's schema it is the number itself."""
    if schema == SCHEMA:
        return lock
    digest = hashlib.sha256(f"{lock} {schema}".encode()).digest()
    return int.from_bytes(digest[:_KEY_BYTES], signed=True)
