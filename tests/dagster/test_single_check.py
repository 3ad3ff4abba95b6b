"""The button "Execute" on a single check: Dagster starts a run without a day."""

from collections.abc import Iterator

import dagster as dg
import pytest
from support.pipeline import DAY, NOW, MakePipeline, Registry
from support.smtpd import Smtpd

from token_pipelines.definitions import build_defs
from token_pipelines.defs.build import JOB

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")

STATEMENT = "UPDATE api_tokens SET expiry_notification_at = :sent_at WHERE id IN :token_ids"

SENTENCE = (
    "This check is about one day, and was started without one; materialize the asset with the day chosen, and its "
    "checks run with it."
)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def execute(definitions: dg.Definitions, check: dg.AssetCheckKey, instance: dg.DagsterInstance) -> str | None:
    """Run this check alone, as the button does; what its step fails with, if it fails."""
    job = definitions.resolve_implicit_global_asset_job_def()
    alone = job.get_subset(asset_selection=set(), asset_check_selection={check})
    result = alone.execute_in_process(instance=instance, raise_on_error=False)
    for event in result.all_events:
        if event.is_step_failure:
            failed = event.step_failure_data
            return str(failed.user_failure_data.description if failed.user_failure_data else failed.error)
    return None


def test_single_check_says_in_a_sentence_that_it_needs_a_day(
    make_pipeline: MakePipeline, instance: dg.DagsterInstance, registry: Registry
) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 2 * DAY)
    with Smtpd() as relay:
        definitions = build_defs(make_pipeline(relay.port, source={"on_sent": STATEMENT}).config, clock=lambda: NOW)
        job = definitions.resolve_job_def(JOB)
        assert job.execute_in_process(instance=instance, partition_key=str(NOW.date()), raise_on_error=False).success
        keys = definitions.resolve_asset_graph().asset_check_keys
        said = {check.to_user_string(): execute(definitions, check, instance) for check in keys}
    definitions.resources["pipeline"].ledger.close()  # type: ignore[index]
    assert len(said) == 3 + 2 * 4
    assert set(said.values()) == {SENTENCE}
