"""Two real processes at once on one day and tier, and one that is asked to stop in the middle."""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from support.pipeline import PipelineRunner, Registry
from support.smtpd import Action, Smtpd
from support.waiting import wait_until

WORKER = Path(__file__).parents[1] / "workers" / "one_day.py"
COMMAND_LINE = "from token_pipelines.cli.main import main; main()"
PATIENCE = 60


def slow(stage: str, _argument: str) -> Action | None:
    """A relay that thinks about each message."""
    return Action(stall=0.1) if stage == "dot" else None


@contextmanager
def started(*command: object) -> Iterator[subprocess.Popen[str]]:
    """A Python process that does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def add_people(registry: Registry, count: int, expires_at: datetime, *, prefix: str = "person") -> list[str]:
    """So many users with one token each; their addresses."""
    addresses = [f"{prefix}{number}@example.org" for number in range(count)]
    for address in addresses:
        registry.token(registry.user(address, email=address), expires_at=expires_at)
    return addresses


def states(registry: Registry) -> dict[str, int]:
    """Return how many notices the ledger holds in each state."""
    return dict(registry.execute("SELECT state, count(*) FROM token_pipelines.notices GROUP BY state"))


def told(server: Smtpd) -> Counter[str]:
    return Counter(mail.recipient for mail in server.accepted)


def test_two_workers_on_one_day_send_one_email_each(registry: Registry, tmp_path: Path) -> None:
    go = tmp_path / "go"
    now = datetime.now(UTC)
    people = add_people(registry, 300, now + timedelta(days=5))
    people += add_people(registry, 40, now + timedelta(hours=12), prefix="urgent")
    with Smtpd() as server:
        config = PipelineRunner(tmp_path, registry.url, server.port, smtp={"connections": 2}).path
        with started(WORKER, config, "one", go) as one, started(WORKER, config, "two", go) as two:
            for worker in (one, two):
                assert worker.stdout is not None
                assert worker.stdout.readline() == "ready\n"
            go.touch()
            said = [worker.communicate(timeout=PATIENCE) for worker in (one, two)]
        accepted = told(server)

    assert [errors for _, errors in said] == ["", ""]
    sent = [int(output) for output, _ in said]
    assert sum(sent) == len(people)
    assert min(sent) > 0, "one worker did it all: this run has shown nothing"
    assert accepted == Counter(people)
    assert states(registry) == {"sent": len(people)}


def test_terminated_run_leaves_no_doubt_and_the_next_completes(registry: Registry, tmp_path: Path) -> None:
    people = add_people(registry, 60, datetime.now(UTC) + timedelta(days=5))
    with Smtpd(script=slow) as server:
        config = PipelineRunner(tmp_path, registry.url, server.port, smtp={"connections": 2}).path
        with started("-c", COMMAND_LINE, "run", "--config", config) as run:
            wait_until(lambda: len(server.accepted) >= 10, seconds=PATIENCE, what="the tenth message")
            run.send_signal(signal.SIGTERM)
            _, errors = run.communicate(timeout=PATIENCE)
        sent = len(server.accepted)

        assert run.returncode == 1
        assert errors == "The run was interrupted; what it had not sent waits for the next run.\n"
        assert 10 <= sent < len(people)
        assert states(registry) == {"sent": sent, "planned": len(people) - sent}

        with started("-c", COMMAND_LINE, "run", "--config", config) as run:
            _, errors = run.communicate(timeout=PATIENCE)
        accepted = told(server)

    assert (run.returncode, errors) == (0, "")
    assert accepted == Counter(people)
    assert states(registry) == {"sent": len(people)}
