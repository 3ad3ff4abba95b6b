"""What passes from planning to sending: a few counts in the run's event log, also when a run is re-executed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterInstance
from support.pipeline import DAY, NOW, PipelineRunner, Registry
from support.smtpd import Action, Smtpd
from workers.day_job import day_job

from token_pipelines.defs.names import Names
from token_pipelines.defs.shares import ShareIOManager
from token_pipelines.defs.tags import PARTITION_TAG
from token_pipelines.errors import TokenPipelinesError

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")

TAGS = {PARTITION_TAG: str(NOW.date())}
DOWN = Action(code=421, text="4.3.2 shutting down")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    with DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def registry(registry_url: str) -> Registry:
    """One who can be told, and one who cannot, in the tier week."""
    registry = Registry(registry_url)
    for name, email in (("ada", "ada@example.org"), ("nowhere", None)):
        registry.token(registry.user(name, email=email), expires_at=NOW + 6 * DAY)
    return registry


def numbers(result: dg.JobExecutionResult, tier: str) -> dict[str, Any]:
    """The outcomes that a tier's materialization shows."""
    [metadata] = [
        event.step_materialization_data.materialization.metadata
        for event in result.all_events
        if event.is_step_materialization and event.asset_key == Names().notices(tier)
    ]
    values = {name: value.value for name, value in metadata.items()}
    return {name: value for name, value in values.items() if isinstance(value, int) and value}


def test_share_is_read_from_the_run_that_planned_when_a_failed_tier_is_reexecuted(
    registry: Registry, tmp_path: Path, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As "Re-execute from failure" in the UI: the steps that succeeded are not run again. The share is in no file."""
    answers: dict[str, Action] = {"rcpt": DOWN}
    with Smtpd(script=lambda stage, _: answers.get(stage)) as relay:
        pipeline = PipelineRunner(tmp_path, registry.url, relay.port)
        monkeypatch.setenv("TOKEN_PIPELINES_CONFIG", str(pipeline.path))
        job = dg.reconstructable(day_job)
        with dg.execute_job(job, instance, tags=TAGS, raise_on_error=False) as failed:
            assert not failed.success
        answers.clear()
        again = dg.ReexecutionOptions.from_failure(failed.run_id, instance)

        with dg.execute_job(job, instance, tags=TAGS, reexecution_options=again) as repaired:
            assert repaired.success

    steps = {event.step_key for event in repaired.all_events if event.is_step_start}
    assert steps == {"notices.send_week", "notices__week_everyone_was_told"}
    assert numbers(repaired, "week") == {"due": 2, "sent": 1, "skipped": 1, "skipped_no_address": 1}
    assert [mail.recipient for mail in relay.accepted] == ["ada@example.org"]
    folder = tmp_path / ".token_pipelines" / "parquet"
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert files == [Path("expiring_tokens", f"{NOW.date()}.parquet")]


def test_share_of_a_run_that_was_deleted_is_refused_with_the_cure(instance: DagsterInstance) -> None:
    planned = dg.build_output_context(step_key="notices.partition_by_tier", name="week", run_id="gone")

    with pytest.raises(TokenPipelinesError, match="is gone from Dagster's storage; launch the tier anew"):
        ShareIOManager(instance).load_input(dg.build_input_context(upstream_output=planned))
