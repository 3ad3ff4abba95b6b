"""A run's heartbeat: it begins with the run's first step and ends with the run.

A step that waits for a slot of the pool executes none of our code. Without this heartbeat, the sensor would presume
such a run dead.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import dagster as dg

from token_pipelines.pipeline import Pipeline


class RunHeartbeat:
    """One run's heartbeat, for as long as its process works on it."""

    def __init__(self, until_the_end: ExitStack) -> None:
        """Send nothing before `begin`: a ledger that cannot be reached must fail a step, which can show the error."""
        self._until_the_end = until_the_end
        self._begun = False

    def begin(self, pipeline: Pipeline, run_id: str) -> None:
        """Send heartbeats from now on.

        Raises:
            LedgerError: if the ledger cannot be reached.
        """
        if not self._begun:
            self._until_the_end.enter_context(pipeline.ledger.heartbeat(run_id))
            self._begun = True


@dg.resource(description="Keeps the run's heartbeat in the ledger.")
def heartbeat(_context: dg.InitResourceContext) -> Iterator[RunHeartbeat]:
    """A resource that Dagster opens with the run and closes with it, however it ends."""
    with ExitStack() as until_the_end:
        yield RunHeartbeat(until_the_end)
