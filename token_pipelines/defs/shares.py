"""Passes each tier's share from the planning op to the sending op, through the run's event log.

A share is a few counts, so it is metadata of the planning op's output. A re-execution from failure reads it from the
run that planned. There is no file to clean up.
"""

from typing import Any, Final

import dagster as dg

from token_pipelines.errors import TokenPipelinesError
from token_pipelines.planning import Share

PLANNED: Final = "planned"
UNREACHABLE: Final = "unreachable"


class ShareIOManager(dg.IOManager):
    """Writes a share as output metadata and reads it back from the event log."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        """Read the event log of ``instance``."""
        self._instance = instance

    def handle_output(self, context: dg.OutputContext, obj: Share) -> None:
        """Attach the counts to the event that says that the output was handled."""
        context.add_output_metadata({PLANNED: obj.planned, UNREACHABLE: dg.MetadataValue.json(dict(obj.unreachable))})

    def load_input(self, context: dg.InputContext) -> Share:
        """Read the share that was planned in this run, or in the run that this one re-executes.

        Raises:
            TokenPipelinesError: if that run was deleted.
        """
        output = context.upstream_output
        assert output is not None  # noqa: S101 -- an input of an op always has one
        handled = self._instance.get_records_for_run(output.run_id, of_type=dg.DagsterEventType.HANDLED_OUTPUT)
        for record in reversed(handled.records):
            event = record.event_log_entry.dagster_event
            data: Any = event and event.event_specific_data
            if event and event.step_key == output.step_key and data.output_name == output.name:
                found = data.metadata
                unreachable = dict(found[UNREACHABLE].value)
                return Share(tier=output.name, planned=int(found[PLANNED].value), unreachable=unreachable)
        msg = f"Run {output.run_id}, which planned this tier, is gone from Dagster's storage; launch the tier anew."
        raise TokenPipelinesError(msg)


@dg.io_manager(description="Passes each tier's counts between ops, in the run's event log.")
def share_io_manager(context: dg.InitResourceContext) -> ShareIOManager:
    """The IO manager on the instance of the run."""
    assert context.instance is not None  # noqa: S101 -- a run always has one
    return ShareIOManager(context.instance)
