"""The real daemon on the shipped dagster.yaml: days that were missed, a tier that fails, runs that are killed."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Self
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
import yaml
from dagster import DagsterInstance
from support.pipeline import PipelineRunner, Registry
from support.smtpd import Action, Smtpd
from support.waiting import wait_until

from token_pipelines import shipped
from token_pipelines.defs.names import Names
from token_pipelines.defs.tags import ATTEMPT_TAG, PARTITION_TAG

DEFINITIONS = Path(__file__).parents[1] / "workers" / "hurried_definitions.py"
TIERS = [{"name": "week", "before": "7d"}, {"name": "day", "before": "1d"}]
NAMES = Names()
KEYS = [NAMES.expiring_tokens, *(NAMES.notices(tier["name"]) for tier in TIERS)]
CONNECTIONS = 2
PATIENCE = 240  # seconds until every day is complete; a machine of its own needs a quarter of it
START_PATIENCE = 120
NOW = datetime.now(UTC)

_PID = re.compile(r"Executing steps in process \(pid: (\d+)\)")


def zone_at_noon() -> str:
    """A zone in which it is about noon, so that midnight comes between no two lines of these tests."""
    ahead = 12 - NOW.hour
    return f"Etc/GMT{-ahead:+d}" if ahead else "UTC"


class House:
    """One installation: its databases, its config, its DAGSTER_HOME, and the daemon, which may be killed."""

    def __init__(self, folder: Path, registry_url: str, storage_url: str, port: int, *, days: int) -> None:
        self.registry = Registry(registry_url)
        zone = zone_at_noon()
        today = NOW.astimezone(ZoneInfo(zone)).date()
        self.days = [today - timedelta(days=back) for back in range(days)]
        schedule = {"at": "01:00", "timezone": zone, "grace": "1h", "start_date": str(self.days[-1])}
        sections: dict[str, Any] = {"schedule": schedule, "tiers": TIERS, "smtp": {"connections": CONNECTIONS}}
        config = PipelineRunner(folder, registry_url, port, **sections).path
        self._home = folder / "home"
        self._home.mkdir()
        self._write_instance()
        self._workspace = folder / "workspace.yaml"
        location = {"relative_path": str(DEFINITIONS), "location_name": "token_pipelines"}
        self._workspace.write_text(yaml.safe_dump({"load_from": [{"python_file": location}]}), encoding="utf-8")
        self.environment = {
            "DAGSTER_HOME": str(self._home),
            "DAGSTER_POSTGRES_URL": storage_url.replace("postgresql://", "postgresql+psycopg2://", 1),
            "TOKEN_PIPELINES_CONFIG": str(config),
        }
        self._log = folder / "daemon.log"

    def add_people(self, count: int, expires_at: datetime, *, prefix: str) -> list[str]:
        """So many users with one token each; their addresses."""
        logins = [f"{prefix}{number}" for number in range(count)]
        addresses = [f"{login}@example.org" for login in logins]
        for login, address in zip(logins, addresses, strict=True):
            self.registry.token(self.registry.user(login, email=address), expires_at=expires_at)
        return addresses

    def states(self) -> dict[str, int]:
        """How many notices the ledger holds in each state."""
        return dict(self.registry.execute("SELECT state, count(*) FROM token_pipelines.notices GROUP BY state"))

    def _write_instance(self) -> None:
        """The shipped file; only what the daemon waits for after a kill is shortened."""
        instance = yaml.safe_load(shipped.path("dagster.yaml").read_text(encoding="utf-8"))
        instance["run_monitoring"] |= {"poll_interval_seconds": 2, "free_slots_after_run_end_seconds": 10}
        (self._home / "dagster.yaml").write_text(yaml.safe_dump(instance), encoding="utf-8")

    def instance(self) -> DagsterInstance:
        """The Dagster instance, seen from the test."""
        return DagsterInstance.from_config(str(self._home))

    def daemon(self) -> "Daemon":
        """A daemon that is not running yet."""
        return Daemon(self._workspace, self._log)

    def say(self) -> str:
        """The end of the daemon's log, for a failing test."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-6000:]


class Daemon:
    """``dagster-daemon run`` with everything that it starts, in a process group of its own."""

    def __init__(self, workspace: Path, log: Path) -> None:
        self._command = [sys.executable, "-m", "dagster._daemon", "run", "--workspace", str(workspace)]
        self._log = log
        self._output: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start."""
        self._output = self._log.open("ab")
        self._process = subprocess.Popen(
            self._command, stdout=self._output, stderr=subprocess.STDOUT, cwd=self._log.parent, start_new_session=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        """End the daemon, then whatever of its group is left."""
        assert self._process is not None
        assert self._output is not None
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self.kill()
        self._output.close()

    def kill(self) -> None:
        """SIGKILL to the whole group: the daemon, the code server, the runs."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Relay:
    """A relay that refuses one tier's recipients until it is healed, and thinks about each message for a while."""

    def __init__(self) -> None:
        self.refuses: str | None = None
        self.stall = 0.0
        self.refused = threading.Event()

    def __call__(self, stage: str, argument: str) -> Action | None:
        """Answer as `Smtpd` asks."""
        if stage == "rcpt" and self.refuses is not None and argument.startswith(self.refuses):
            self.refused.set()
            return Action(code=550, text="5.7.1 this class of mail is not let through today")
        return Action(stall=self.stall) if stage == "dot" else None


@pytest.fixture
def relay() -> Relay:
    return Relay()


@pytest.fixture
def server(relay: Relay) -> Iterator[Smtpd]:
    with Smtpd(script=relay) as server:
        yield server


@pytest.fixture
def make_house(
    tmp_path: Path, registry_url: str, database_url: str, server: Smtpd, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], House]:
    def make(days: int) -> House:
        house = House(tmp_path, registry_url, database_url, server.port, days=days)
        for name, value in house.environment.items():
            monkeypatch.setenv(name, value)
        return house

    return make


def wait_for_the_day(house: House, instance: DagsterInstance, days: Sequence[date]) -> None:
    """Until these days are complete and nothing runs any more."""
    wanted = {str(day) for day in days}

    def complete() -> bool:
        missing = [key for key in KEYS if not wanted <= instance.get_materialized_partitions(key)]
        return not missing and all(run.is_finished for run in instance.get_runs())

    try:
        wait_until(complete, seconds=PATIENCE, what="every day being complete")
    except AssertionError as error:
        error.add_note(house.say())
        raise


def told(server: Smtpd) -> Counter[str]:
    return Counter(mail.recipient for mail in server.accepted)


def selections(instance: DagsterInstance, day: date) -> list[set[dg.AssetKey]]:
    """The assets of each run that the sensor asked for on a day, by attempt."""
    runs = instance.get_runs(dg.RunsFilter(tags={PARTITION_TAG: str(day)}))
    runs = sorted(runs, key=lambda run: int(run.tags[ATTEMPT_TAG]))
    assert [run.tags[ATTEMPT_TAG] for run in runs] == [str(number) for number in range(1, len(runs) + 1)]
    return [set(run.asset_selection or ()) for run in runs]


@pytest.mark.timeout(START_PATIENCE + PATIENCE)
def test_missed_days_complete_and_only_the_failed_tier_is_retried(
    make_house: Callable[[int], House], relay: Relay, server: Smtpd
) -> None:
    house = make_house(4)  # three days missed, and today
    people = house.add_people(12, NOW + timedelta(days=5), prefix="week")
    people += house.add_people(8, NOW + timedelta(hours=20), prefix="day")
    relay.refuses = "week"

    with ExitStack() as stack:
        instance = stack.enter_context(house.instance())
        stack.enter_context(house.daemon())

        def failed_run() -> bool:
            return bool(instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])))

        wait_until(failed_run, seconds=START_PATIENCE, what="a run that failed by the relay")
        relay.refuses = None
        wait_for_the_day(house, instance, house.days)
        asked = {day: selections(instance, day) for day in house.days}

    assert relay.refused.is_set()
    assert told(server) == Counter(people)
    assert house.states() == {"sent": len(people)}
    for selected in asked.values():
        assert selected[0] == set(KEYS)
        assert all(again == {NAMES.notices("week")} for again in selected[1:])
    assert len(asked[house.days[0]]) > 1


@pytest.mark.timeout(START_PATIENCE + PATIENCE)
@pytest.mark.parametrize("victim", ["the run", "everything"])
def test_killed_run_completes_by_itself(
    make_house: Callable[[int], House], relay: Relay, server: Smtpd, victim: str
) -> None:
    house = make_house(1)
    people = house.add_people(60, NOW + timedelta(days=5), prefix="week")
    relay.stall = 0.3

    with ExitStack() as stack:
        instance = stack.enter_context(house.instance())
        daemon = stack.enter_context(house.daemon())
        wait_until(lambda: len(server.accepted) >= 10, seconds=START_PATIENCE, what="the tenth message")
        [run] = instance.get_runs()
        if victim == "the run":
            os.kill(pid_of(instance, run.run_id), signal.SIGKILL)
        else:
            daemon.kill()
            stack.enter_context(house.daemon())
        assert len(server.accepted) < len(people)
        relay.stall = 0
        wait_for_the_day(house, instance, house.days)
        killed = instance.get_run_by_id(run.run_id)

    assert killed is not None
    assert killed.status is dg.DagsterRunStatus.FAILURE
    assert set(told(server)) == set(people)
    twice = [address for address, count in told(server).items() if count > 1]
    assert len(twice) <= CONNECTIONS
    for address in twice:
        copies = [mail for mail in server.accepted if mail.recipient == address]
        assert len(copies) == 2
        assert len({mail.message["Message-ID"] for mail in copies}) == 1
    assert house.states() == {"sent": len(people)}


def pid_of(instance: DagsterInstance, run_id: str) -> int:
    """The process that works on a run."""
    for entry in instance.all_logs(run_id):
        if found := _PID.search(entry.message):
            return int(found[1])
    msg = f"run {run_id} has not begun"
    raise AssertionError(msg)
