"""The tags of a run: Dagster's own that we read, and ours."""

from typing import Final

import dagster as dg

PARTITION_TAG: Final = "dagster/partition"
"""The day, as Dagster tags a run of one partition."""

APPROVE_TAG: Final = "token_pipelines/approve_volume"
"""Set to true on a run when a person has approved the day's volume."""

APPROVED_BY_TAG: Final = "token_pipelines/approved_by"
"""The user of the operating system who approved it on the command line."""

ATTEMPT_TAG: Final = "token_pipelines/attempt"
"""The number of the sensor's attempt at a day; re-executions copy it."""

NOW_TAG: Final = "token_pipelines/now"
"""The instant at which a rehearsal's clock began."""


def approver(run: dg.DagsterRun) -> str | None:
    """Who approved the volume, for the ledger; None if nobody did. Dagster knows no users: in the UI it is the run."""
    if not is_approved(run):
        return None
    user = run.tags.get(APPROVED_BY_TAG)
    return f"run {run.run_id}" if user is None else f"{user} (run {run.run_id})"


def is_approved(run: dg.DagsterRun) -> bool:
    """Whether the run carries a person's approval of the day's volume."""
    return run.tags.get(APPROVE_TAG) == "true"
