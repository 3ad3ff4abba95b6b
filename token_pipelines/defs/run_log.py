"""Copies the story of a day, which `token_pipelines.day` logs at INFO, into the log of the Dagster run.

By itself Dagster does this only for loggers that dagster.yaml names (``managed_python_loggers``), a setting of the
whole instance. Only that module's few lines are copied, since Dagster's event log grows without bound.
"""

import logging
from collections.abc import Iterator

import dagster as dg

from token_pipelines import day


class RunLog(logging.Handler):
    """Writes what is logged into the log of the step that runs."""

    def __init__(self, log: logging.Logger) -> None:
        """Write to ``log`` until a step begins."""
        super().__init__(logging.INFO)
        self._log = log

    def follow(self, log: logging.Logger) -> None:
        """Write to the log of this step from now on."""
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line. A log that cannot be written must not stop the day."""
        try:
            self._log.log(record.levelno, record.getMessage())
        except Exception:  # noqa: BLE001 -- as every handler of the standard library
            self.handleError(record)


@dg.resource(description="Copies the story of the day into the run's log.")
def run_log(context: dg.InitResourceContext) -> Iterator[RunLog]:
    """A resource that Dagster opens with the run and closes with it, however it ends."""
    story = logging.getLogger(day.__name__)
    handler = RunLog(context.log or story)
    level = story.level
    story.setLevel(logging.INFO)
    story.addHandler(handler)
    try:
        yield handler
    finally:
        story.removeHandler(handler)
        story.setLevel(level)
