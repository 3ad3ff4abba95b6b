"""Where a part of the ledger does its work: in transactions of its own, or inside one that is already open."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from sqlalchemy import Connection

Begin = Callable[[], AbstractContextManager[Connection]]
"""Opens a transaction, which commits when its block ends well: `Engine.begin`, or what `inside` returns."""


def inside(connection: Connection) -> Begin:
    """Work in the transaction of this connection, which its owner commits."""
    return lambda: nullcontext(connection)
