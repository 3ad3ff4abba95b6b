"""The command line as an operator meets it: JSON alone on stdout, exit statuses, one sentence for each mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from support.commands import (
    RUN,
    Command,
    Configure,
    Said,
    assert_one_sentence,
    mistake,
    nothing_sent,
    outcomes,
    someone,
)
from support.pipeline import DAY, NOW, Registry, write_config
from support.scenarios import at_stage
from support.smtpd import Action, Smtpd

# run --json


def test_run_prints_one_object_and_nothing_else(command: Command, configure: Configure, registry: Registry) -> None:
    someone(registry)
    registry.token(registry.user("nowhere"), expires_at=NOW + 20 * DAY)
    with Smtpd() as relay:
        configure(relay.port)
        said = command(*RUN)
    assert (said.status, said.err) == (0, "")
    found = json.loads(said.out)
    assert said.out.count("\n") == 1
    assert found["now"].startswith("2026-11-20T09:00:"), "the clock goes on from where it was set"
    assert found == {
        "version": 1,
        "date": "2026-11-20",
        "run_id": found["run_id"],
        "status": "success",
        "mode": "live",
        "now": found["now"],
        "fuse": {"tripped": False, "max_notices": 100_000},
        "tokens": {"examined": 2, "due": 1, "reasons": {"no_address": 1}},
        "tiers": {
            "expired": outcomes(),
            "day": outcomes(due=1, sent=1),
            "week": outcomes(),
            "month": outcomes(due=1, skipped={"no_address": 1}),
        },
    }
    assert [row[0] for row in registry.execute("SELECT run_id FROM runs WHERE status = 'SUCCESS'")] == [found["run_id"]]
    assert len(relay.accepted) == 1


def test_second_run_sends_nothing(command: Command, configure: Configure, registry: Registry) -> None:
    someone(registry)
    with Smtpd() as relay:
        configure(relay.port)
        first, second = json.loads(command(*RUN).out), json.loads(command(*RUN).out)
    assert first["tiers"]["day"]["sent"] == 1
    assert second["tiers"] == dict.fromkeys(("expired", "day", "week", "month"), outcomes())
    assert second["tokens"]["reasons"] == {"already_notified": 1}
    assert len(relay.accepted) == 1


def test_run_of_one_tier_and_day_does_no_other(command: Command, configure: Configure, registry: Registry) -> None:
    someone(registry)
    registry.token(registry.user("eve", email="eve@example.org"), expires_at=NOW + 20 * DAY)
    with Smtpd() as relay:
        configure(relay.port)
        said = command(*RUN, "--tier", "month", "--tier", "week", "--date", "2026-11-18")
    found = json.loads(said.out)
    assert (said.status, found["date"], set(found["tiers"])) == (0, "2026-11-18", {"month", "week"})
    assert [accepted.recipient for accepted in relay.accepted] == ["eve@example.org"]


def test_run_for_people_shows_a_table(command: Command, configure: Configure, registry: Registry) -> None:
    someone(registry)
    with Smtpd() as relay:
        configure(relay.port)
        said = command("run", "--now", "2026-11-20T10:00:00+01:00")
    assert (said.status, said.err) == (0, "")
    assert "1 tokens examined, 1 due" in said.out.replace("\n", " ")
    assert "ada@example.org" not in said.out


@pytest.mark.parametrize(
    ("action", "outcome"),
    [
        (Action(code=450, text="4.2.2 full"), "deferred"),
        (Action(code=550, text="5.1.1 no such user"), "failed"),
    ],
)
def test_run_with_something_undelivered_exits_with_1(
    command: Command, configure: Configure, registry: Registry, action: Action, outcome: str
) -> None:
    someone(registry)
    registry.token(registry.user("bob", email="bob@example.org"), expires_at=NOW + DAY / 2)
    with Smtpd(script=at_stage("rcpt", action, of="ada")) as relay:
        configure(relay.port)
        said = command(*RUN)
    found = json.loads(said.out)
    assert (said.status, found["status"]) == (1, "success")
    assert said.err == (
        f"Not every notice that was due is delivered ({outcome} 1); `token-pipelines history --date 2026-11-20 --json` "
        "shows what the relay answered.\n"
    )
    assert found["tiers"]["day"] == outcomes(due=2, sent=1, **{outcome: 1})


def test_run_with_something_in_doubt_exits_with_1(command: Command, configure: Configure, registry: Registry) -> None:
    someone(registry)
    with Smtpd(script=lambda stage, _: Action(drop="after") if stage == "dot" else None) as relay:
        configure(relay.port)
        said = command(*RUN)
    assert (said.status, json.loads(said.out)["tiers"]["day"]) == (1, outcomes(due=1, unknown=1))


def test_dry_run_exits_with_0(command: Command, configure: Configure, registry: Registry) -> None:
    someone(registry)
    configure(delivery={"mode": "dry_run"})
    said = command(*RUN)
    found = json.loads(said.out)
    assert (said.status, found["mode"], found["tiers"]["day"]) == (0, "dry_run", outcomes(due=1, waiting=1))
    assert registry.execute("SELECT 1 FROM token_pipelines.notices") == []


def test_fuse_is_one_sentence_until_approved(command: Command, configure: Configure, registry: Registry) -> None:
    someone(registry)
    someone(registry, "bob")
    with Smtpd() as relay:
        configure(relay.port, delivery={"max_notices": 1})
        tripped = command(*RUN)
        assert tripped.status == 1
        assert json.loads(tripped.out)["fuse"] == {"tripped": True, "max_notices": 1}
        assert nothing_sent(registry)
        approved = command(*RUN, "--approve-volume")
    assert (approved.status, json.loads(approved.out)["tiers"]["day"]["sent"]) == (0, 2)


def test_fuse_says_why_on_stderr(command: Command, configure: Configure, registry: Registry) -> None:
    someone(registry)
    someone(registry, "bob")
    configure(delivery={"max_notices": 1})
    first, second = command(*RUN), command(*RUN)
    for said in (first, second):
        assert "over delivery.max_notices of 1" in said.err
        assert_one_sentence(said)


# history


def test_history_prints_one_object_a_line(command: Command, configure: Configure, registry: Registry) -> None:
    token = someone(registry)
    with Smtpd() as relay:
        configure(relay.port)
        run_id = json.loads(command(*RUN).out)["run_id"]
    said = command("history", "--json")
    assert (said.status, said.err) == (0, "")
    [found] = [json.loads(line) for line in said.out.splitlines()]
    (accepted,) = relay.accepted
    [attempt] = found["attempts"]
    assert found == {
        "version": 1,
        "notice_id": found["notice_id"],
        "date": "2026-11-20",
        "mode": "live",
        "tier": "day",
        "state": "sent",
        "reason": None,
        "recipient_id": "1",
        "tokens": [{"token_id": token, "expires_at": "2026-11-22T09:00:00Z", "tier": "day"}],
        "message_id": accepted.message["Message-ID"],
        "sent_at": found["sent_at"],
        "attempts": [attempt],
    }
    assert found["sent_at"].startswith("2026-11-20T09:0")
    assert attempt == {
        "at": found["sent_at"],
        "run_id": run_id,
        "stage": "dot",
        "code": 250,
        "enhanced": "2.0.0",
        "reply": attempt["reply"],
        "queue_id": attempt["queue_id"],
    }
    assert attempt["queue_id"].startswith("Q")


def test_history_can_be_narrowed_and_may_be_empty(command: Command, configure: Configure, registry: Registry) -> None:
    tokens = [someone(registry), someone(registry, "bob")]
    with Smtpd() as relay:
        configure(relay.port)
        command(*RUN)
    for arguments, recipients in [
        (("--token", tokens[1]), ["2"]),
        (("--recipient", "1"), ["1"]),
        (("--date", "2026-11-20"), ["1", "2"]),
        (("--date", "2026-11-21"), []),
        (("--token", "999"), []),
    ]:
        said = command("history", "--json", *arguments)
        assert said.status == 0
        assert sorted(json.loads(line)["recipient_id"] for line in said.out.splitlines()) == recipients
    assert command("history", "--token", "999").out == "The ledger holds nothing that fits.\n"


def test_history_before_the_first_run_is_empty(command: Command, configure: Configure) -> None:
    configure()
    said = command("history", "--json")
    assert (said.status, said.out, said.err) == (0, "", "")


# As a program of its own


def program(*arguments: str, folder: Path) -> Said:
    """Run the console script's function in a new process, as an operator's shell or cron does."""
    bare = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
    started = subprocess.run(
        [sys.executable, "-c", "from token_pipelines.cli.main import main; main()", *arguments],
        cwd=folder,
        env=bare | {"HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return Said(status=started.returncode, out=started.stdout, err=started.stderr)


def test_program_runs_a_day_in_a_fresh_folder_and_database(registry_url: str, tmp_path: Path) -> None:
    """Nothing is there yet: no Dagster home, no Dagster tables, no ledger. The config lies elsewhere."""
    registry = Registry(registry_url)
    someone(registry)
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    with Smtpd() as relay:
        path = write_config(home, registry_url, relay.port)
        said = program(*RUN, "--config", str(path), folder=elsewhere)
    assert (said.status, said.err) == (0, "")
    assert json.loads(said.out)["tiers"]["day"] == outcomes(due=1, sent=1)
    assert len(relay.accepted) == 1
    assert (home / ".token_pipelines" / "dagster.yaml").is_file()
    assert not [found for found in elsewhere.rglob("*") if "token" in found.name or "dagster" in found.name]
    with psycopg.connect(registry_url) as connection:
        assert connection.execute("SELECT status FROM runs").fetchall() == [("SUCCESS",)]


def test_program_with_a_mistake_shows_no_traceback(tmp_path: Path) -> None:
    said = program("run", folder=tmp_path)
    assert mistake(said, 2).startswith("token_pipelines.yaml does not exist;")
    assert said.out == ""


def test_failed_read_shows_no_zeros(command: Command, configure: Configure, registry: Registry) -> None:
    configure()
    registry.execute("DROP TABLE api_tokens CASCADE")
    said = command("run", "--now", "2026-11-20T09:00:00Z")
    assert said.status == 2
    assert said.out == "2026-11-20 (live): no tokens were read, and nobody was told.\n"


def test_tripped_fuse_shows_no_zeros(command: Command, configure: Configure, registry: Registry) -> None:
    for name in ("ada", "bob"):
        someone(registry, name)
    configure(delivery={"max_notices": 1})
    said = command("run", "--now", "2026-11-20T09:00:00Z")
    assert said.out == ("2026-11-20 (live): 2 tokens examined, 2 due tokens; no tier was run, and nobody was told.\n")


def test_title_says_what_is_counted(command: Command, configure: Configure, registry: Registry) -> None:
    ada = registry.user("ada", email="ada@example.org")
    for _ in range(2):
        registry.token(ada, expires_at=NOW + 2 * DAY)
    with Smtpd() as relay:
        configure(relay.port)
        said = command("run", "--now", "2026-11-20T09:00:00Z")
    assert "2 tokens examined, 2 due tokens; below, notices" in said.out.replace("\n", " ")
    [row] = [line for line in said.out.splitlines() if " day " in line]
    assert row.split("│")[2].strip() == "1"
