"""The tags of a run: Dagster's own that we read, and ours."""

from datetime import date
from typing import Final

import dagster as dg

PARTITION_TAG: Final = "dagster/partition"
"""The day, as Dagster tags a run of one partition."""

DAY_TAG: Final = "token_pipelines/day"
"""A pipeline's name and the day: dagster.yaml lets one run of each at a time, so no pipeline waits for another."""

APPROVE_TAG: Final = "token_pipelines/approve_volume"
"""Set to true on a run when a person has approved the day's volume."""

NEW_LEDGER_TAG: Final = "token_pipelines/new_ledger"
"""Set to true on a run when a person says that the ledger is meant as it is, empty or older."""

APPROVED_BY_TAG: Final = "token_pipelines/approved_by"
"""The user of the operating system who approved it on the command line."""

ATTEMPT_TAG: Final = "token_pipelines/attempt"
"""The number of the sensor's attempt at a day; re-executions copy it."""

NOW_TAG: Final = "token_pipelines/now"
"""The instant at which a rehearsal's clock began."""


def means_new_ledger(run: dg.DagsterRun) -> bool:
    """Whether the run carries a person's word that the ledger is meant as it is."""
    return run.tags.get(NEW_LEDGER_TAG) == "true"


def day_of_check(run: dg.DagsterRun) -> date:
    """The day that a check of this run is about.

    Raises:
        dg.Failure: if the run has none. The UI's button "Execute" on a check starts such a run, and Dagster itself
            could not store what its check says.
    """
    if PARTITION_TAG not in run.tags:
        msg = (
            "This check is about one day, and was started without one; materialize the asset with the day chosen, and "
            "its checks run with it."
        )
        raise dg.Failure(msg)
    return date.fromisoformat(run.tags[PARTITION_TAG])


def approver(run: dg.DagsterRun) -> str | None:
    """Who approved the volume, for the ledger; None if nobody did. Dagster knows no users: in the UI it is the run."""
    if not is_approved(run):
        return None
    user = run.tags.get(APPROVED_BY_TAG)
    return f"run {run.run_id}" if user is None else f"{user} (run {run.run_id})"


def is_approved(run: dg.DagsterRun) -> bool:
    """Whether the run carries a person's approval of the day's volume."""
    return run.tags.get(APPROVE_TAG) == "true"
