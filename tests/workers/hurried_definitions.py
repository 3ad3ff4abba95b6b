"""What the daemon test's workspace points at: the real definitions, with the sensor's and the lease's times shortened.

An operator has no use for such settings, so they are set from outside.
"""

from datetime import timedelta
from types import ModuleType

from sqlalchemy import text

from token_pipelines.defs import missed_days
from token_pipelines.ledger import heartbeat, sending

LEASE = "6 seconds"


def hurried(module: ModuleType, statement: str) -> None:
    """Write the shorter lease into one of a module's statements."""
    before = str(getattr(module, statement))
    after = before.replace(heartbeat.LEASE, LEASE)
    assert after != before
    setattr(module, statement, text(after))


for module, name, value in (
    (missed_days, "INTERVAL_S", 2),
    (missed_days, "FIRST_PAUSE", timedelta(seconds=2)),
    (heartbeat, "HEARTBEAT_S", 1),
):
    setattr(module, name, value)
hurried(heartbeat, "_LAPSED")
hurried(sending, "_DEAD")

from token_pipelines.definitions import defs  # noqa: E402, F401 -- after the changes above
