"""How a part of the ledger gets its transactions: it opens its own, or uses one that is already open."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from sqlalchemy import Connection

Begin = Callable[[], AbstractContextManager[Connection]]
"""Opens a transaction, which commits if its block raises nothing: `Engine.begin`, or what `inside` returns."""


def inside(connection: Connection) -> Begin:
    """Use the transaction of this connection; its owner commits it."""
    return lambda: nullcontext(connection)
