"""Advisory locks: Postgres has one set of them a database, and several ledgers may live in one."""

import hashlib
from typing import Final

from token_pipelines.ledger.tables import SCHEMA

MIGRATION_LOCK: Final = 0x746F6B656E31
"""One process migrates at a time ("token1" in ASCII)."""

PLANNING_LOCK: Final = 0x746F6B656E32
"""Planning takes it alone, claiming shares it ("token2" in ASCII)."""

_KEY_BYTES: Final = 8


def lock_key(lock: int, schema: str) -> int:
    """The key of a lock for the ledger in this schema: a single pipeline's is the number itself, as ever."""
    if schema == SCHEMA:
        return lock
    digest = hashlib.sha256(f"{lock} {schema}".encode()).digest()
    return int.from_bytes(digest[:_KEY_BYTES], signed=True)
