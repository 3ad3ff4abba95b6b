"""Running a day again, whole or one tier, from the command line or as the UI does: what is missing is sent, once."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance
from support.commands import Command
from support.pipeline import DAY, NOW, MakePipeline, PipelineRunner, Registry
from support.smtpd import Action, Smtpd

from token_pipelines.defs.build import JOB, build_defs
from token_pipelines.defs.names import Names
from token_pipelines.model import rfc3339

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")

TODAY = NOW.date()
YESTERDAY = TODAY - DAY


class Relay:
    """A relay that answers each recipient in ``answers`` as told, and takes everything else."""

    def __init__(self) -> None:
        self.answers: dict[str, Action] = {}

    def __call__(self, stage: str, argument: str) -> Action | None:
        """Answer as `Smtpd` asks."""
        return self.answers.get(argument) if stage == "rcpt" else None


DOWN = Action(code=421, text="4.3.2 shutting down")
LATER = Action(code=450, text="4.2.2 mailbox full")


@pytest.fixture
def script() -> Relay:
    return Relay()


@pytest.fixture
def relay(script: Relay) -> Iterator[Smtpd]:
    with Smtpd(script=script) as relay:
        yield relay


@pytest.fixture
def pipeline(make_pipeline: MakePipeline, relay: Smtpd) -> PipelineRunner:
    return make_pipeline(relay)


class Launcher:
    """Launches the job in this process, as the UI does: a day, and some of its assets."""

    def __init__(self, pipeline: PipelineRunner, instance: DagsterInstance) -> None:
        self._config = pipeline.config
        self._instance = instance

    def __call__(self, day: date, now: datetime, only: Sequence[str] = ()) -> dg.ExecuteInProcessResult:
        """Run the day, or only these tiers of it, at an instant."""
        definitions = build_defs(self._config, clock=lambda: now)
        result = definitions.resolve_job_def(JOB).execute_in_process(
            instance=self._instance,
            partition_key=str(day),
            asset_selection=[Names().notices(tier) for tier in only] or None,
            raise_on_error=False,
        )
        definitions.resources["pipeline"].ledger.close()  # type: ignore[index]
        return result


@pytest.fixture
def launch(pipeline: PipelineRunner, tmp_path: Path) -> Iterator[Launcher]:
    with DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        yield Launcher(pipeline, instance)


def add(registry: Registry, name: str, expires_at: datetime) -> str:
    """Add somebody with one token, named after them; its id."""
    return registry.token(registry.user(name, email=f"{name}@example.org"), expires_at=expires_at, name=f"{name}-token")


def made(result: dg.ExecuteInProcessResult) -> set[dg.AssetKey | None]:
    return {event.asset_key for event in result.get_asset_materialization_events()}


def told(relay: Smtpd) -> list[str]:
    return [mail.recipient.partition("@")[0] for mail in relay.accepted]


def test_whole_day_again_sends_nothing_twice(registry: Registry, relay: Smtpd, launch: Launcher) -> None:
    add(registry, "week", NOW + 6 * DAY)
    add(registry, "month", NOW + 20 * DAY)

    for _ in range(3):
        assert launch(TODAY, NOW).success

    assert sorted(told(relay)) == ["month", "week"]


def test_failed_tier_alone_again_sends_what_is_missing(
    registry: Registry, relay: Smtpd, script: Relay, launch: Launcher
) -> None:
    add(registry, "week", NOW + 6 * DAY)
    add(registry, "month", NOW + 20 * DAY)
    script.answers = {"week@example.org": DOWN}
    assert not launch(TODAY, NOW).success
    assert told(relay) == ["month"]
    script.answers = {}

    again = launch(TODAY, NOW, only=["week"])

    assert again.success
    assert made(again) == {Names().notices("week")}
    assert told(relay) == ["month", "week"]


def test_command_line_runs_a_failed_tier_alone_and_then_the_whole_day(
    registry: Registry, relay: Smtpd, script: Relay, pipeline: PipelineRunner, command: Command
) -> None:
    add(registry, "week", NOW + 6 * DAY)
    add(registry, "month", NOW + 20 * DAY)
    run = ("run", "--config", str(pipeline.path), "--now", rfc3339(NOW))
    script.answers = {"week@example.org": DOWN}
    assert command(*run).status == 1
    assert told(relay) == ["month"]
    script.answers = {}

    assert command(*run, "--tier", "month").status == 0
    assert told(relay) == ["month"]
    assert command(*run, "--tier", "week").status == 0
    assert command(*run).status == 0
    assert command(*run, "--date", str(YESTERDAY)).status == 0

    assert told(relay) == ["month", "week"]


@pytest.mark.parametrize("only", [["week"], []])
def test_day_whose_file_is_gone_is_read_again(
    registry: Registry, relay: Smtpd, script: Relay, launch: Launcher, tmp_path: Path, only: list[str]
) -> None:
    add(registry, "week", NOW + 6 * DAY)
    script.answers = {"week@example.org": DOWN}
    assert not launch(TODAY, NOW).success
    script.answers = {}
    [file] = tmp_path.glob(f".token_pipelines/parquet/{Names().expiring_tokens.to_user_string()}/{TODAY}.parquet")
    file.unlink()

    assert launch(TODAY, NOW, only).success

    assert told(relay) == ["week"]
    assert file.exists() is not bool(only)


@pytest.mark.parametrize("only", [["month", "week", "day"], []])
def test_old_day_speaks_of_the_present(
    registry: Registry, relay: Smtpd, script: Relay, launch: Launcher, pipeline: PipelineRunner, only: list[str]
) -> None:
    """What was to be said a fortnight ago is not said: one token has come nearer to its end, one has been renewed."""
    then = NOW - 14 * DAY
    nearer = add(registry, "nearer", NOW + timedelta(days=5, hours=4))
    renewed = add(registry, "renewed", NOW + timedelta(days=6))
    script.answers = dict.fromkeys(("nearer@example.org", "renewed@example.org"), DOWN)
    assert not launch(then.date(), then).success
    script.answers = {}
    registry.change(renewed, expired_at=NOW + 300 * DAY)

    again = launch(then.date(), NOW, only)

    assert again.success
    assert told(relay) == ["nearer"]
    [mail] = relay.accepted
    assert "5 days" in mail.message["Subject"]
    last = pipeline.history(token_id=nearer)[-1]
    assert (last["tier"], last["state"], last["date"]) == ("week", "sent", str(then.date()))
    assert [entry["state"] for entry in pipeline.history(token_id=renewed)] in (
        ["withdrawn"],
        ["skipped"],
        ["deferred"],
    )


def test_old_day_after_the_newest_has_nothing_left_to_say(registry: Registry, relay: Smtpd, launch: Launcher) -> None:
    add(registry, "week", NOW + 6 * DAY)
    add(registry, "month", NOW + 20 * DAY)

    for back in range(4):
        assert launch(TODAY - back * DAY, NOW).success

    assert sorted(told(relay)) == ["month", "week"]


def test_tier_of_an_old_day_takes_nothing_from_what_waits_since(
    registry: Registry, relay: Smtpd, script: Relay, launch: Launcher
) -> None:
    """The old day's file knows only one of the tokens that today's waiting notice is about."""
    user = registry.user("ada", email="ada@example.org")
    registry.token(user, expires_at=NOW + timedelta(days=7), name="known-yesterday")
    script.answers = {"ada@example.org": DOWN}
    assert not launch(YESTERDAY, NOW - DAY).success
    registry.token(user, expires_at=NOW + timedelta(days=6), name="known-today")
    script.answers = {"ada@example.org": LATER}
    assert launch(TODAY, NOW).success
    script.answers = {}

    assert launch(YESTERDAY, NOW, only=["week"]).success

    [mail] = relay.accepted
    text = mail.data.decode()
    assert "known-yesterday" in text
    assert "known-today" in text


def test_run_again_in_every_way_tells_everybody_once(
    registry: Registry, relay: Smtpd, script: Relay, launch: Launcher, pipeline: PipelineRunner, command: Command
) -> None:
    names = ["week", "day", "month", "expired"]
    for name, days in zip(names, (6, 1, 20, -1), strict=True):
        add(registry, name, NOW + days * DAY)
    run = ("run", "--config", str(pipeline.path), "--now", rfc3339(NOW))
    script.answers = {"week@example.org": DOWN, "day@example.org": LATER}

    launch(TODAY, NOW)
    command(*run, "--tier", "week")
    launch(YESTERDAY, NOW)
    script.answers = {}
    command(*run, "--date", str(YESTERDAY), "--tier", "day")
    launch(TODAY, NOW, only=["month", "week"])
    command(*run)
    launch(TODAY, NOW + timedelta(hours=1))

    assert sorted(told(relay)) == sorted(names)
