"""A run's heartbeat: begun by its first step, ended with the run, so it goes on while a step waits for its slot.

A step that waits for the pool runs nothing of ours. Without this, a run that waited behind a long one fell silent, and
the sensor took it for killed.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import dagster as dg

from token_pipelines.pipeline import Pipeline


class RunHeartbeat:
    """One run's heartbeat, for as long as its process works on it."""

    def __init__(self, until_the_end: ExitStack) -> None:
        """Nothing is said before `begin`: an error of the ledger's belongs to a step, which can tell it."""
        self._until_the_end = until_the_end
        self._begun = False

    def begin(self, pipeline: Pipeline, run_id: str) -> None:
        """Say from now on that the run lives.

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
