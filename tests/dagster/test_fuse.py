"""The volume fuse in Dagster: planning trips it, the day's check shows it, and no run goes round it."""

import getpass
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterInstance
from support.commands import Command
from support.pipeline import DAY, NOW, PipelineRunner, Registry
from support.smtpd import Smtpd

from token_pipelines.defs.build import JOB, build_defs
from token_pipelines.defs.missed_days import SENSOR
from token_pipelines.defs.names import Names
from token_pipelines.defs.tags import APPROVE_TAG
from token_pipelines.defs.volume import CHECK
from token_pipelines.model import Mode, rfc3339

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")

TODAY = NOW.date()
CHECK_KEY = dg.AssetCheckKey(Names().expiring_tokens, CHECK)
SENTENCE = (
    "The volume fuse has tripped: 2 notices were new on 2026-11-20, over delivery.max_notices of 1; nothing was planned"
    " and nothing is sent. Look at the day in the UI, then approve it (token-pipelines run --approve-volume), raise"
    " delivery.max_notices to at least 2, or fix the source."
)


class Operator:
    """Runs the job in one Dagster instance, with the limit as the config says it at that moment."""

    def __init__(self, folder: Path, url: str, port: int, instance: DagsterInstance) -> None:
        self.instance = instance
        self._where = (folder, url, port)
        self.limit = 1

    def pipeline(self) -> PipelineRunner:
        """The pipeline under the present limit."""
        return PipelineRunner(*self._where, delivery={"max_notices": self.limit})

    def run(self, *, only: Sequence[str] = (), days_later: int = 0, approve: bool = False) -> dg.ExecuteInProcessResult:
        """One run of a day, or of some of its tiers."""
        now = NOW + days_later * DAY
        definitions = build_defs(self.pipeline().config, clock=lambda: now)
        result = definitions.resolve_job_def(JOB).execute_in_process(
            instance=self.instance,
            partition_key=str(now.date()),
            asset_selection=[Names().notices(tier) for tier in only] or None,
            tags={APPROVE_TAG: "true"} if approve else {},
            raise_on_error=False,
        )
        definitions.resources["pipeline"].ledger.close()  # type: ignore[index]
        return result

    def shown(self, days_later: int = 0) -> tuple[str, dict[str, Any], str | None]:
        """What the UI shows of the check on a day: its status, its metadata and its description."""
        partition = str(TODAY + days_later * DAY)
        [record] = self.instance.event_log_storage.get_asset_check_execution_history(CHECK_KEY, limit=1)
        entry = record.event
        assert entry is not None
        assert entry.dagster_event is not None
        evaluation = entry.dagster_event.asset_check_evaluation_data
        assert (record.partition, evaluation.partition) == (partition, partition)
        metadata = {name: value.value for name, value in evaluation.metadata.items()}
        return record.status.value, metadata, evaluation.description

    def open_trip(self) -> bool:
        """Whether the sensor finds that the fuse stops every day."""
        definitions = build_defs(self.pipeline().config, clock=lambda: NOW)
        context = dg.build_sensor_context(instance=self.instance, definitions=definitions)
        data = definitions.resolve_sensor_def(SENSOR).evaluate_tick(context)
        definitions.resources["pipeline"].ledger.close()  # type: ignore[index]
        return (data.skip_message or "").startswith("The volume fuse has tripped, so no day is asked for.")


@pytest.fixture
def relay() -> Iterator[Smtpd]:
    with Smtpd() as relay:
        yield relay


@pytest.fixture
def operator(tmp_path: Path, dagster_url: str, relay: Smtpd) -> Iterator[Operator]:
    """An operator whose day has two new notices, one more than the limit."""
    registry = Registry(dagster_url)
    for name, left in [("ada", 2), ("bob", 20)]:
        registry.token(registry.user(name, email=f"{name}@example.org"), expires_at=NOW + left * DAY)
    with DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        yield Operator(tmp_path, dagster_url, relay.port, instance)


def failures(result: dg.ExecuteInProcessResult) -> dict[str, str | None]:
    """The failed steps with what they say."""
    return {
        event.step_key.rpartition(".")[2]: (
            event.step_failure_data.user_failure_data and event.step_failure_data.user_failure_data.description
        )
        for event in result.all_events
        if event.is_step_failure and event.step_key
    }


def test_fuse_trips_at_planning_and_shows_on_the_day(operator: Operator, relay: Smtpd) -> None:
    tripped = operator.run()

    assert failures(tripped) == {"partition_by_tier": SENTENCE}
    trip = {"tripped_on": str(TODAY), "new_notices": 2}
    assert operator.shown() == ("FAILED", {"max_notices": 1, "approved": False, "planned": 0} | trip, SENTENCE)
    assert operator.open_trip()
    assert relay.connections == 0


def test_fuse_that_has_tripped_stops_later_days_before_planning(operator: Operator, relay: Smtpd) -> None:
    operator.run()

    later = operator.run(days_later=1)

    assert list(failures(later)) == [f"expiring_tokens_{CHECK}"]
    assert operator.shown(days_later=1)[0] == "FAILED"
    assert operator.shown(days_later=1)[2] == SENTENCE
    assert relay.connections == 0


def test_fuse_that_has_tripped_stops_a_tier_run_alone(operator: Operator, relay: Smtpd) -> None:
    """Such a run does not execute the check; planning asks the ledger itself."""
    operator.run()

    alone = operator.run(only=["day"])

    assert failures(alone) == {"partition_by_tier": SENTENCE}
    assert relay.connections == 0


def test_fuse_that_a_person_approves_lets_the_day_go(operator: Operator, relay: Smtpd) -> None:
    operator.run()

    approved = operator.run(approve=True)

    assert approved.success
    assert operator.shown() == ("SUCCEEDED", {"max_notices": 1, "approved": True, "planned": 2}, None)
    assert len(relay.accepted) == 2
    assert not operator.open_trip()
    assert operator.run(days_later=1).success


@pytest.mark.parametrize("only", [[], ["day", "month"]])
def test_fuse_is_approved_by_a_limit_of_what_tripped_it(operator: Operator, relay: Smtpd, only: list[str]) -> None:
    operator.run()
    operator.limit = 2
    assert not operator.open_trip()

    raised = operator.run(only=only)

    assert raised.success
    assert operator.shown() == ("SUCCEEDED", {"max_notices": 2, "approved": False, "planned": 2}, None)
    assert len(relay.accepted) == 2
    operator.limit = 1
    assert not operator.open_trip()
    assert operator.run(days_later=1).success


def test_fuse_that_trips_in_a_tier_run_alone_shows_on_the_day(
    operator: Operator, relay: Smtpd, dagster_url: str
) -> None:
    registry = Registry(dagster_url)
    registry.token(registry.user("eve", email="eve@example.org"), expires_at=NOW + 20 * DAY)

    assert not operator.run(only=["month"]).success

    assert operator.shown()[0] == "FAILED"
    assert operator.shown()[1]["new_notices"] == 2
    assert operator.run(only=["day"], approve=True).success
    assert operator.shown()[0] == "SUCCEEDED"
    assert len(relay.accepted) == 1


def test_command_line_says_once_that_the_fuse_has_tripped(operator: Operator, relay: Smtpd, command: Command) -> None:
    run = ("run", "--config", str(operator.pipeline().path), "--now", rfc3339(NOW))

    for _ in range(2):
        said = command(*run)
        assert (said.status, said.err.strip()) == (1, SENTENCE)
    approved = command(*run, "--approve-volume")

    assert (approved.status, approved.err) == (0, "")
    assert len(relay.accepted) == 2


def test_dry_run_neither_trips_nor_approves(operator: Operator, relay: Smtpd) -> None:
    operator.run()
    rehearsal = PipelineRunner(*operator._where, delivery={"max_notices": 1, "mode": "dry_run"})  # noqa: SLF001 -- its own folder
    assert rehearsal.run(NOW, approve=True).numbers == {"waiting": 2}

    assert operator.open_trip()
    with closing(rehearsal.parts(NOW).ledger) as ledger:
        assert ledger.fuse.open_trip(Mode.LIVE, max_notices=1) is not None
    assert relay.connections == 0


def test_fuse_counts_tiers_that_are_run_one_by_one(operator: Operator, relay: Smtpd, dagster_url: str) -> None:
    """Each stays below the limit, and together they would not; the next scheduled instant starts afresh."""
    registry = Registry(dagster_url)
    registry.token(registry.user("eve", email="eve@example.org"), expires_at=NOW + 7 * DAY)

    assert operator.run(only=["week"]).success  # ada's and eve's tiers are week, bob's is month
    trip = failures(operator.run(only=["month"]))

    assert trip["partition_by_tier"] is not None
    assert trip["partition_by_tier"].startswith("The volume fuse has tripped: 2 notices were new on 2026-11-20")
    assert len(relay.accepted) == 1


def test_fuse_keeps_who_approved_and_when(operator: Operator, dagster_url: str, command: Command) -> None:
    """A run of Dagster's, a user of the command line, or a limit that was raised."""
    registry = Registry(dagster_url)
    operator.run()
    by_run = operator.run(approve=True).run_id
    trips = "SELECT approved_by, approved_at FROM token_pipelines.fuse_trips ORDER BY trip_id"
    assert registry.execute(trips) == [(f"run {by_run}", NOW)]

    for number, left in enumerate((21, 22)):
        registry.token(registry.user(f"new{number}", email=f"n{number}@example.org"), expires_at=NOW + left * DAY)
    run = ("run", "--config", str(operator.pipeline().path), "--now", rfc3339(NOW + DAY))
    assert command(*run).status == 1
    assert command(*run, "--approve-volume").status == 0
    (by_user, at) = registry.execute(trips)[1]
    assert by_user.startswith(f"{getpass.getuser()} (run ")
    assert at >= NOW + DAY

    plans = registry.execute("SELECT new_notices, approved_by FROM token_pipelines.plans ORDER BY plan_id")
    assert plans == [(2, f"run {by_run}"), (2, by_user)]
