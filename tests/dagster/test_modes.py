"""A day that was run in another mode is not the day's run: those who are due are told on it all the same."""

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import AssetPartitionStatus, DagsterInstance
from support.pipeline import DAY, PipelineRunner, Registry
from support.smtpd import Smtpd

from token_pipelines.defs.build import JOB, build_defs
from token_pipelines.defs.missed_days import SENSOR
from token_pipelines.defs.names import Names

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")

TODAY = datetime.now(UTC).date()
NOON = datetime.combine(TODAY, time(12), UTC)
TIERS = ("expired", "day", "week", "month")
REDIRECT = {"mode": "redirect", "redirect_to": "staging@example.org"}


class House:
    """One pipeline whose mode changes from run to run, in one Dagster instance."""

    def __init__(self, folder: Path, url: str, port: int, instance: DagsterInstance) -> None:
        self.instance = instance
        self._where = (folder, url, port)

    def _definitions(self, **delivery: Any) -> dg.Definitions:  # noqa: ANN401 -- YAML
        schedule = {"start_date": str(TODAY), "lookback_days": 1, "at": "09:00", "grace": "2h"}
        config = PipelineRunner(*self._where, schedule=schedule, delivery=delivery).config
        return build_defs(config, clock=lambda: NOON)

    def run(self, **delivery: Any) -> bool:  # noqa: ANN401 -- YAML
        definitions = self._definitions(**delivery)
        job = definitions.resolve_job_def(JOB)
        result = job.execute_in_process(instance=self.instance, partition_key=str(TODAY), raise_on_error=False)
        definitions.resources["pipeline"].ledger.close()  # type: ignore[index]
        return result.success

    def tick(self, **delivery: Any) -> tuple[set[str], str]:  # noqa: ANN401 -- YAML
        """The tiers that the sensor asks for, and what it says if it asks for none."""
        definitions = self._definitions(**delivery)
        context = dg.build_sensor_context(instance=self.instance, definitions=definitions)
        data = definitions.resolve_sensor_def(SENSOR).evaluate_tick(context)
        definitions.resources["pipeline"].ledger.close()  # type: ignore[index]
        asked = {key.path[-1] for request in data.run_requests or [] for key in request.asset_selection or []}
        return asked, data.skip_message or ""


@pytest.fixture
def relay() -> Iterator[Smtpd]:
    with Smtpd() as relay:
        yield relay


@pytest.fixture
def house(tmp_path: Path, dagster_url: str, relay: Smtpd) -> Iterator[House]:
    registry = Registry(dagster_url)
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOON + 2 * DAY)
    with DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        yield House(tmp_path, dagster_url, relay.port, instance)


def test_day_of_a_dry_run_is_still_asked_for(house: House, relay: Smtpd) -> None:
    assert house.run(mode="dry_run")

    key = Names().notices("week")
    partitions = dg.DailyPartitionsDefinition(start_date=str(TODAY - timedelta(days=1)), end_offset=1)
    status = house.instance.get_status_by_partition(key, [str(TODAY)], partitions) or {}
    assert status.get(str(TODAY)) is not AssetPartitionStatus.MATERIALIZED
    [shown] = house.instance.fetch_observations(key, limit=5).records
    assert shown.asset_observation is not None
    metadata = {name: value.value for name, value in shown.asset_observation.metadata.items()}
    assert (metadata["mode"], metadata["waiting"]) == ("dry_run", 1)
    assert relay.accepted == []
    assert house.tick()[0] == set(TIERS)


def test_day_is_not_asked_for_while_the_mode_is_dry_run(house: House) -> None:
    assert house.tick(mode="dry_run") == (set(), "delivery.mode is dry_run: nobody is told, so no day is asked for.")


def test_day_of_a_redirect_is_asked_for_only_in_another_mode(house: House, relay: Smtpd) -> None:
    assert house.run(**REDIRECT)

    assert house.tick(**REDIRECT) == (set(), f"{TODAY}: complete")
    assert house.tick()[0] == set(TIERS)
    assert house.run()
    assert house.tick() == (set(), f"{TODAY}: complete")
    assert [accepted.recipient for accepted in relay.accepted] == ["staging@example.org", "ada@example.org"]
