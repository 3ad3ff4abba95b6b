"""The sensor that catches up, tick by tick, over toy assets whose fate the test decides. Its ledger is real."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster import DagsterInstance
from support.pipeline import PipelineRunner

from token_pipelines import shipped
from token_pipelines.defs import missed_days
from token_pipelines.defs.build import build_defs, daily_partitions
from token_pipelines.defs.missed_days import MAX_ATTEMPTS, REQUESTS_PER_TICK
from token_pipelines.defs.overrides import Overrides
from token_pipelines.defs.tags import ATTEMPT_TAG, DAY_TAG, PARTITION_TAG
from token_pipelines.ledger.fuse import Trip
from token_pipelines.model import Mode
from token_pipelines.pipeline import Pipeline

TODAY = datetime.now(UTC).date()  # Dagster's own partitions end with the world's day
NOON = datetime.combine(TODAY, time(12), UTC)
LOOKBACK = 3
NAMES = ("expiring_tokens", "day", "week")
FIRST_PAUSE = missed_days.FIRST_PAUSE


def back(days: int) -> str:
    return str(TODAY - timedelta(days=days))


class Toy:
    """A job of three assets, of which those in ``broken`` fail, and the sensor that watches over it."""

    def __init__(self, parts: Pipeline, instance: DagsterInstance) -> None:
        self.instance = instance
        self.broken: set[str] = set()
        self.meanwhile: Callable[[str], None] = lambda _run_id: None
        partitions = daily_partitions(parts.config, Overrides(clock=parts.clock))
        self.keys = [dg.AssetKey(name) for name in NAMES]
        self._definitions = dg.Definitions(
            assets=[self._asset(key, partitions) for key in self.keys],
            jobs=[dg.define_asset_job("daily_notices", executor_def=dg.in_process_executor)],
            sensors=[missed_days.build_sensor("daily_notices", self.keys, partitions, parts)],
        )

    def _asset(self, key: dg.AssetKey, partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
        @dg.asset(key=key, partitions_def=partitions)
        def asset(context: dg.AssetExecutionContext) -> None:
            self.meanwhile(context.run.run_id)
            if key.path[-1] in self.broken:
                raise dg.Failure(description="as the test told me")

        return asset

    def run(self, day: str, only: Sequence[str] = (), tags: dict[str, str] | None = None) -> str:
        """Run a day to its end; its run id."""
        result = self._definitions.resolve_job_def("daily_notices").execute_in_process(
            instance=self.instance,
            partition_key=day,
            asset_selection=[dg.AssetKey(name) for name in only] or None,
            tags=tags,
            raise_on_error=False,
        )
        return result.run_id

    def complete(self, *days: int) -> None:
        """Run these days, told as days back from today, to their good end."""
        for day in days:
            self.run(back(day))

    def cancel(self, day: str) -> None:
        """A run of this day that a person cancels before it has begun."""
        job = self._definitions.resolve_job_def("daily_notices")
        run = self.instance.create_run_for_job(job, tags={PARTITION_TAG: day})
        self.instance.report_run_canceled(run)

    def tick(self) -> tuple[list[dg.RunRequest], str]:
        """What the sensor asks for, and what it says when it asks for nothing."""
        context = dg.build_sensor_context(instance=self.instance, definitions=self._definitions)
        data = self._definitions.resolve_sensor_def("backfill_missed_days").evaluate_tick(context)
        return list(data.run_requests or []), data.skip_message or ""

    def carry_out(self, request: dg.RunRequest) -> str:
        """Run what was asked for; its run id."""
        assert request.partition_key is not None
        names = [key.path[-1] for key in request.asset_selection or []]
        return self.run(request.partition_key, names, dict(request.tags))

    def use_up(self, attempts: int) -> None:
        """Ask and fail so often, without rests."""
        for _ in range(attempts):
            [request], _ = self.tick()
            self.carry_out(request)


@pytest.fixture
def pipeline(tmp_path: Path, registry_url: str) -> PipelineRunner:
    schedule = {"start_date": str(TODAY - timedelta(days=30)), "lookback_days": LOOKBACK, "at": "09:00", "grace": "2h"}
    return PipelineRunner(tmp_path, registry_url, 1, schedule=schedule)


@pytest.fixture
def parts(pipeline: PipelineRunner) -> Iterator[Pipeline]:
    """Return the parts, at noon; ``pipeline.parts`` moves their clock."""
    parts = pipeline.parts(NOON)
    with closing(parts.ledger):
        yield parts


@pytest.fixture
def toy(parts: Pipeline, tmp_path: Path) -> Iterator[Toy]:
    with DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        yield Toy(parts, instance)


@pytest.fixture
def no_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missed_days, "FIRST_PAUSE", timedelta())


@dg.asset
def something_else() -> None:
    """Of another team, in the same Dagster."""


def days_of(requests: Sequence[dg.RunRequest]) -> list[str | None]:
    return [request.partition_key for request in requests]


def names_of(request: dg.RunRequest) -> list[str]:
    return [key.path[-1] for key in request.asset_selection or []]


def test_missing_days_are_asked_for_newest_first_and_few_at_a_time(toy: Toy) -> None:
    asked = []
    while requests := toy.tick()[0]:
        assert len(requests) <= REQUESTS_PER_TICK
        asked += days_of(requests)
        for request in requests:
            toy.carry_out(request)

    assert asked == [back(0), back(1), back(2), back(3)]


def test_complete_days_are_left_alone_and_named(toy: Toy) -> None:
    toy.complete(0, 1, 2, 3)

    requests, words = toy.tick()

    assert requests == []
    assert words == "; ".join(f"{back(day)}: complete" for day in range(4))


def test_only_the_incomplete_assets_of_a_failed_day_are_asked_for(toy: Toy) -> None:
    toy.complete(0, 2, 3)
    toy.broken = {"week"}
    toy.complete(1)

    [request], _ = toy.tick()

    assert request.partition_key == back(1)
    assert names_of(request) == ["week"]
    assert request.run_key == f"{back(1)}#1"


def test_complete_asset_that_failed_since_is_asked_for(toy: Toy) -> None:
    toy.complete(0, 1, 2, 3)
    toy.broken = {"day"}
    toy.run(back(2), ["day"])

    [request], _ = toy.tick()

    assert (request.partition_key, names_of(request)) == (back(2), ["day"])


def test_cancelled_day_is_asked_for(toy: Toy) -> None:
    toy.complete(0, 1, 3)
    toy.cancel(back(2))

    [request], _ = toy.tick()

    assert request.partition_key == back(2)
    assert names_of(request) == list(NAMES)


def test_day_in_progress_is_left_alone(toy: Toy) -> None:
    toy.complete(1, 2, 3)
    ticks: list[Any] = []
    toy.meanwhile = lambda _run_id: ticks.append(toy.tick())

    toy.run(back(0))

    assert len(ticks) == len(NAMES)
    for requests, words in ticks:
        assert requests == []
        assert words.startswith(f"{back(0)}: in progress; ")


def test_day_of_which_one_asset_is_in_progress_is_left_alone(toy: Toy) -> None:
    toy.complete(1, 2, 3)
    toy.broken = {"day"}
    toy.run(back(0))
    ticks: list[Any] = []
    toy.meanwhile = lambda _run_id: ticks.append(toy.tick())

    toy.run(back(0), ["week"])

    [(requests, words)] = ticks
    assert requests == []
    assert words.startswith(f"{back(0)}: in progress; ")


def test_newest_day_has_its_grace(toy: Toy, pipeline: PipelineRunner) -> None:
    toy.complete(1, 2, 3)
    eleven = datetime.combine(TODAY, time(11), UTC)

    pipeline.parts(eleven - timedelta(seconds=1))
    requests, words = toy.tick()
    assert requests == []
    assert back(0) not in words
    pipeline.parts(eleven)
    assert days_of(toy.tick()[0]) == [back(0)]


def test_days_before_the_start_and_beyond_the_lookback_are_not_looked_at(parts: Pipeline) -> None:
    schedule = parts.config.schedule
    late = schedule.model_copy(update={"start_date": TODAY - timedelta(days=1)})

    assert missed_days.days_to_look_at(schedule, NOON) == [TODAY - timedelta(days=day) for day in range(LOOKBACK + 1)]
    assert missed_days.days_to_look_at(late, NOON) == [TODAY, TODAY - timedelta(days=1)]


@pytest.mark.usefixtures("no_rests")
def test_run_key_carries_the_attempt(toy: Toy) -> None:
    toy.complete(1, 2, 3)
    toy.broken = {"week"}

    keys = []
    for _ in range(3):
        [request], _ = toy.tick()
        keys.append((request.run_key, request.tags[ATTEMPT_TAG]))
        toy.carry_out(request)

    assert keys == [(f"{back(0)}#{attempt}", str(attempt)) for attempt in (1, 2, 3)]


def test_each_attempt_rests_twice_as_long_as_the_one_before(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.complete(1, 2, 3)
    toy.broken = {"week"}
    rests = []
    for attempt in range(2, MAX_ATTEMPTS + 1):
        monkeypatch.setattr(missed_days, "FIRST_PAUSE", timedelta())
        toy.use_up(1)
        monkeypatch.setattr(missed_days, "FIRST_PAUSE", FIRST_PAUSE)
        requests, words = toy.tick()
        assert requests == []
        assert words.startswith(f"{back(0)}: incomplete; attempt {attempt} waits ")
        rests.append(words.partition(";")[2].partition(" waits ")[2].split()[0])

    assert rests == ["0:05:00", "0:10:00", "0:20:00", "0:40:00"]


@pytest.mark.usefixtures("no_rests")
def test_day_waits_for_a_person_after_the_last_attempt(toy: Toy) -> None:
    toy.complete(1, 2, 3)
    toy.broken = {"week"}
    toy.use_up(MAX_ATTEMPTS)

    requests, words = toy.tick()

    assert requests == []
    assert f"{back(0)}: gave up after {MAX_ATTEMPTS} attempts; look at its runs and start it by hand" in words
    toy.broken = set()
    toy.run(back(0), ["week"])
    assert toy.tick()[1].startswith(f"{back(0)}: complete; ")


@pytest.mark.usefixtures("no_rests")
def test_runs_of_a_persons_own_use_up_no_attempt_and_free_none(toy: Toy) -> None:
    toy.complete(1, 2, 3)
    toy.broken = {"week"}
    toy.use_up(2)
    for _ in range(MAX_ATTEMPTS + 3):
        toy.run(back(0), ["week"])

    [request], _ = toy.tick()

    assert request.run_key == f"{back(0)}#3"


@pytest.mark.usefixtures("no_rests")
def test_reexecution_of_an_attempt_is_not_another_attempt(toy: Toy) -> None:
    """The UI's re-execution copies the tags."""
    toy.complete(1, 2, 3)
    toy.broken = {"week"}
    [request], _ = toy.tick()
    for _ in range(3):
        toy.carry_out(request)

    [request], _ = toy.tick()

    assert request.run_key == f"{back(0)}#2"


@pytest.mark.usefixtures("no_rests")
def test_attempts_of_another_day_or_another_job_do_not_count(toy: Toy) -> None:
    toy.complete(2, 3)
    toy.broken = {"week"}
    toy.run(back(1), tags={ATTEMPT_TAG: "3"})
    toy.complete(0)
    stranger = dg.Definitions(assets=[something_else], jobs=[dg.define_asset_job("stranger")])
    tags = {PARTITION_TAG: back(0), ATTEMPT_TAG: "4"}
    stranger.resolve_job_def("stranger").execute_in_process(instance=toy.instance, tags=tags)

    requests, _ = toy.tick()

    assert [request.run_key for request in requests] == [f"{back(0)}#1", f"{back(1)}#4"]


def test_tripped_fuse_holds_all_days_and_says_so(toy: Toy, parts: Pipeline) -> None:
    ledger = parts.ledger
    ledger.migrate()
    limit = parts.config.delivery.max_notices
    trip = Trip(day=TODAY, new_notices=limit + 1, max_notices=limit)
    ledger.fuse.trip(trip, mode=Mode.LIVE, run_id="r", at=NOON)

    requests, words = toy.tick()

    assert requests == []
    assert words.startswith("The volume fuse has tripped, so no day is asked for.")
    assert "--approve-volume" in words
    ledger.fuse.approve(Mode.LIVE, at=NOON, by="a person")
    assert toy.tick()[0] != []


def test_killed_run_is_reported_failed_and_its_day_asked_for(toy: Toy, parts: Pipeline) -> None:
    toy.complete(1, 2, 3)
    ticks: list[Any] = []

    def fall_silent(run_id: str) -> None:
        assert toy.tick()[1].startswith(f"{back(0)}: in progress; ")
        parts.ledger.migrate()
        with parts.ledger.heartbeat(run_id), parts.ledger.engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE token_pipelines.runs SET heartbeat_at = heartbeat_at - interval '3 minutes'"
            )
            connection.commit()
            ticks.append((toy.tick(), toy.instance.get_run_by_id(run_id)))
        raise KeyboardInterrupt

    toy.meanwhile = fall_silent
    toy.run(back(0))

    [((requests, _), run)] = ticks
    assert run is not None
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert days_of(requests) == [back(0)]


def test_living_run_is_not_reported_failed(toy: Toy, parts: Pipeline) -> None:
    toy.complete(1, 2, 3)
    ticks: list[Any] = []

    def live(run_id: str) -> None:
        with parts.ledger.heartbeat(run_id):
            ticks.append((toy.tick(), toy.instance.get_run_by_id(run_id)))

    toy.meanwhile = live
    parts.ledger.migrate()
    toy.run(back(0))

    for (requests, _), run in ticks:
        assert run is not None
        assert run.status is dg.DagsterRunStatus.STARTED
        assert requests == []


@pytest.mark.filterwarnings("ignore:Function `JobDefinition.run_request_for_partition`:DeprecationWarning")  # its own
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland", "America/Los_Angeles"])
def test_schedule_gives_the_ticks_own_day_and_no_other(tmp_path: Path, registry_url: str, zone: str) -> None:
    """Dagster's schedules of partitioned jobs do not catch up: three missed days give one run, of today."""
    schedule = {"start_date": str(TODAY - timedelta(days=30)), "timezone": zone, "at": "09:00"}
    config = PipelineRunner(tmp_path, registry_url, 1, schedule=schedule).config
    definition = build_defs(config).resolve_schedule_def("daily")
    day = config.schedule.today(datetime.now(UTC)) - timedelta(days=1)  # yesterday's tick, never in the future
    tick = config.schedule.run_at(day)

    data = definition.evaluate_tick(dg.build_schedule_context(scheduled_execution_time=tick))

    assert definition.execution_timezone == zone
    assert definition.cron_schedule == "0 9 * * *"
    assert [request.partition_key for request in data.run_requests or []] == [str(day)]
    assert [request.tags[DAY_TAG] for request in data.run_requests or []] == [str(day)]
    assert date.fromisoformat(str(day)) == day


def test_killed_run_of_today_is_asked_for_within_the_grace(toy: Toy, parts: Pipeline, pipeline: PipelineRunner) -> None:
    toy.complete(1, 2, 3)
    toy.broken = {"week"}
    run_id = toy.run(back(0))
    parts.ledger.migrate()
    pipeline.parts(datetime.combine(TODAY, time(9, 10), UTC))
    assert back(0) not in toy.tick()[1], "a run that failed in an orderly way waits for the grace"
    with parts.ledger.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO token_pipelines.runs (run_id, started_at, heartbeat_at)"
            " VALUES (%(run_id)s, now(), now() - interval '3 minutes')",
            {"run_id": run_id},
        )

    assert days_of(toy.tick()[0]) == [back(0)]


def test_runs_of_the_job_carry_their_pipeline_and_day(tmp_path: Path, registry_url: str) -> None:
    """dagster.yaml lets one run of each such tag go at a time."""
    job = build_defs(PipelineRunner(tmp_path, registry_url, 1).config).resolve_job_def("daily_notices")
    assert job.get_tags_for_partition_key(back(0), selected_asset_keys=None)[DAY_TAG] == back(0)
    limits = yaml.safe_load(shipped.path("dagster.yaml").read_text(encoding="utf-8"))["concurrency"]["runs"]
    assert [limit["key"] for limit in limits["tag_concurrency_limits"]] == [DAY_TAG]
