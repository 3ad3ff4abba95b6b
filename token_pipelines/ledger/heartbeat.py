"""Heartbeats of the runs: soon after a killed run's last heartbeat, other runs may take its notices."""

import logging
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Engine, text

from token_pipelines.errors import LedgerError

log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 20

LEASE: Final = "2 minutes"
"""A run without a heartbeat for this long is presumed dead. That is six heartbeats: a slow database does no harm."""

_ENLIST: Final = text("""
INSERT INTO token_pipelines.runs (run_id, started_at, heartbeat_at)
VALUES (:run_id, clock_timestamp(), clock_timestamp())
ON CONFLICT (run_id) DO UPDATE SET heartbeat_at = clock_timestamp(), ended_at = NULL
""")
_BEAT: Final = text("UPDATE token_pipelines.runs SET heartbeat_at = clock_timestamp() WHERE run_id = :run_id")
_LEAVE: Final = text("UPDATE token_pipelines.runs SET ended_at = clock_timestamp() WHERE run_id = :run_id")
_LAPSED: Final = text(f"""
SELECT run_id FROM token_pipelines.runs
WHERE run_id = ANY(:run_ids) AND greatest(heartbeat_at, ended_at) < clock_timestamp() - interval '{LEASE}'
""")  # noqa: S608 -- constants only
_KILLED: Final = text(f"""
SELECT run_id FROM token_pipelines.runs
WHERE run_id = ANY(:run_ids) AND ended_at IS NULL AND heartbeat_at < clock_timestamp() - interval '{LEASE}'
""")  # noqa: S608 -- constants only


@contextmanager
def heartbeat(engine: Engine, run_id: str) -> Iterator[None]:
    """Register the run, and send its heartbeats while the block lasts."""
    _execute(engine, _ENLIST, run_id)
    left = threading.Event()

    def beat() -> None:
        while not left.wait(HEARTBEAT_S):
            try:
                _execute(engine, _BEAT, run_id)
            except LedgerError as error:
                log.warning("The run could not send its heartbeat; it tries again in %s s. %s", HEARTBEAT_S, error)

    thread = threading.Thread(target=beat, name="ledger-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()
        try:
            _execute(engine, _LEAVE, run_id)
        except LedgerError as error:
            log.warning("The run could not record its end in the ledger; it is presumed dead in %s. %s", LEASE, error)


def expired_leases(engine: Engine, run_ids: Collection[str]) -> set[str]:
    """The runs among these whose last heartbeat is older than the lease. Leaves out runs that never sent one."""
    with engine.connect() as connection:
        return set(connection.scalars(_LAPSED, {"run_ids": list(run_ids)}))


def killed_runs(engine: Engine, run_ids: Collection[str]) -> set[str]:
    """The runs among these that never said that they ended, and whose lease has expired."""
    with engine.connect() as connection:
        return set(connection.scalars(_KILLED, {"run_ids": list(run_ids)}))


def _execute(engine: Engine, statement: object, run_id: str) -> None:
    with engine.begin() as connection:
        connection.execute(statement, {"run_id": run_id})  # type: ignore[call-overload]
