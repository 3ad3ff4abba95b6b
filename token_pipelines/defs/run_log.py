"""Copies what `token_pipelines.day` logs at INFO into the log of the Dagster run.

Dagster itself copies only loggers that dagster.yaml names (``managed_python_loggers``), a setting for the whole
instance. We copy only the few lines of that module, since Dagster's event log grows without bound.
"""

import logging
from collections.abc import Iterator
from contextlib import suppress

import dagster as dg

from token_pipelines import day


class RunLog(logging.Handler):
    """Writes log records into the log of the running step."""

    def __init__(self, log: logging.Logger) -> None:
        """Write to ``log`` until a step begins."""
        super().__init__(logging.INFO)
        self._log = log

    def follow(self, log: logging.Logger) -> None:
        """Write to the log of this step from now on."""
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line. A log that cannot be written must not stop the day.

        Nor does it print a traceback, as ``handleError`` would: if Dagster's storage is lost, the run says so once.
        """
        with suppress(Exception):
            self._log.log(record.levelno, record.getMessage())


@dg.resource(description="Copies the log of the day's steps into the run's log.")
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
