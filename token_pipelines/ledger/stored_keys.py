"""Random keys that a ledger keeps for itself, each made when it is first needed."""

import secrets as random_bytes
from typing import Final

from sqlalchemy import Engine, select
from sqlalchemy.dialects.postgresql import insert

from token_pipelines.ledger.tables import secrets

KEY_BYTES: Final = 32


def stored_key(engine: Engine, name: str) -> bytes:
    """The key of this name; a new one if the ledger has none yet. Two processes get the same one."""
    if (found := find_key(engine, name)) is not None:
        return found
    fresh = {"name": name, "value": random_bytes.token_bytes(KEY_BYTES)}
    with engine.begin() as connection:
        connection.execute(insert(secrets).values(fresh).on_conflict_do_nothing())
    return bytes(find_key(engine, name) or b"")


def find_key(engine: Engine, name: str) -> bytes | None:
    """The key of this name; None if the ledger has none."""
    with engine.begin() as connection:
        found = connection.scalar(select(secrets.c.value).where(secrets.c.name == name))
    return None if found is None else bytes(found)
