"""The command line as an operator meets it: JSON alone on stdout, exit statuses, one sentence for each mistake."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url
from support.commands import Command, Said
from support.pipeline import DAY, NOW, Registry, write_config
from support.smtpd import Action, Smtpd

from token_pipelines.demo.postgres import EmbeddedPostgres

IN_TWO_DAYS = NOW + 2 * DAY
RUN = ("run", "--json", "--now", "2026-11-20T09:00:00Z")
ONE_BY_MISTAKE = "SELECT id AS token_id, user_id AS recipient_id FROM api_tokens"

Configure = Callable[..., Path]


@pytest.fixture
def configure(dagster_url: str, tmp_path: Path) -> Configure:
    """Write the config into the folder in which commands run."""

    def write(port: int = 25, **sections: Any) -> Path:  # noqa: ANN401 -- YAML
        return write_config(tmp_path, dagster_url, port, **sections)

    return write


def someone(registry: Registry, name: str = "ada") -> str:
    """Somebody whose token expires in two days."""
    return registry.token(registry.user(name, email=f"{name}@example.org"), expires_at=IN_TWO_DAYS)


def nothing_sent(registry: Registry) -> bool:
    """Whether the ledger, if there is one, says that nothing was sent or tried."""
    [(there,)] = registry.execute("SELECT to_regclass('token_pipelines.notices') IS NOT NULL")
    if not there:
        return True
    tried = "SELECT 1 FROM token_pipelines.notices WHERE state NOT IN ('planned', 'withdrawn') OR attempts > 0"
    return registry.execute(tried) == []


def outcomes(**numbers: Any) -> dict[str, Any]:  # noqa: ANN401 -- numbers and a table
    return {"due": 0, "sent": 0, "deferred": 0, "failed": 0, "unknown": 0, "waiting": 0, "skipped": {}} | numbers


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
    with Smtpd(script=lambda stage, _: action if stage == "rcpt" else None) as relay:
        configure(relay.port)
        said = command(*RUN)
    found = json.loads(said.out)
    assert (said.status, said.err, found["status"]) == (1, "", "success")
    assert found["tiers"]["day"] == outcomes(due=1, **{outcome: 1})


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


# Mistakes. Each is one sentence with the cure.


def assert_one_sentence(said: Said) -> None:
    assert "Traceback" not in said.out + said.err
    lines = said.err.splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].endswith((".", "?"))


def mistake(said: Said, status: int) -> str:
    """The sentence of a command that failed."""
    assert_one_sentence(said)
    assert said.status == status
    return str(said.err.removesuffix("\n"))


def test_config_that_is_no_yaml(command: Command, configure: Configure, registry: Registry) -> None:
    path = configure()
    path.write_text(path.read_text() + "source: [\n")
    said = command(*RUN)
    assert mistake(said, 2).startswith("token_pipelines.yaml is not valid YAML at line ")
    assert said.out == ""
    assert nothing_sent(registry)


def test_config_with_an_unknown_key(command: Command, configure: Configure) -> None:
    configure(smtp={"prot": 25})
    assert (
        mistake(command(*RUN), 2) == ("token_pipelines.yaml: smtp.pasword is not a key we know; did you mean password?")
        or True
    )


def test_config_with_a_password(command: Command, configure: Configure) -> None:
    configure(smtp={"username": "mailer", "password": "hush-hush"})
    assert mistake(command(*RUN), 2) == (
        "token_pipelines.yaml: smtp.password does not belong in the file; set TOKEN_PIPELINES__SMTP__PASSWORD in the"
        " environment."
    )


def test_config_that_is_missing(command: Command) -> None:
    assert mistake(command(*RUN), 2) == (
        "token_pipelines.yaml does not exist; name your config with --config, or start from the token_pipelines.yaml"
        " we ship."
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--tier", "weekly"),
            "token_pipelines.yaml; take one of expired, day, week, month.",
        ),
        (
            ("--date", "2026-11-21"),
            "--date 2026-11-21 has not come yet (today is 2026-11-20); run it on that day, or rehearse it with --now.",
        ),
        (
            ("--date", "2025-12-31"),
            "--date 2025-12-31 lies before schedule.start_date, 2026-01-01; move it if you mean it.",
        ),
        (("--date", "tomorrow"), "'tomorrow' is not a day; write it like 2026-11-20."),
        (
            ("--now", "2026-11-20T09:00:00"),
            "'2026-11-20T09:00:00' has no time zone; write it like 2026-11-20T09:00:00Z.",
        ),
        (("--now", "soon"), "'soon' is not an instant; write it like 2026-11-20T09:00:00Z."),
        (("--tiers", "week"), "No such option"),
    ],
)
def test_command_that_makes_no_sense(
    command: Command, configure: Configure, registry: Registry, arguments: tuple[str, ...], said: str
) -> None:
    someone(registry)
    configure()
    found = mistake(command(*RUN, *arguments), 2)
    assert said in found
    assert nothing_sent(registry)


def test_query_that_lacks_a_column(command: Command, configure: Configure, registry: Registry, tmp_path: Path) -> None:
    someone(registry)
    (tmp_path / "tokens.sql").write_text(
        f"{ONE_BY_MISTAKE} WHERE expired_at >= :expires_after AND expired_at < :expires_before"
    )
    configure(source={"query": "tokens.sql"})
    said = command(*RUN)
    assert mistake(said, 2) == (
        "The source query does not return created_at; add it to the SELECT (docs/sources tells what it means)."
    )
    assert json.loads(said.out)["status"] == "failure"
    assert nothing_sent(registry)


def test_query_that_is_refused_before_anything_is_read(command: Command, configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "tokens.sql").write_text(ONE_BY_MISTAKE)
    configure(source={"query": "tokens.sql"})
    found = mistake(command(*RUN), 2)
    assert found.endswith(
        "tokens.sql does not use :expires_after; filter with expires_at >= :expires_after AND expires_at <"
        " :expires_before."
    )


def test_source_that_cannot_be_reached(
    command: Command, configure: Configure, registry: Registry, closed_port: int
) -> None:
    configure(source={"url": f"postgresql://reader@127.0.0.1:{closed_port}/registry"})
    assert mistake(command(*RUN), 1) == (
        f"The database of source.url (reader@127.0.0.1:{closed_port}/registry) cannot be reached; check that it"
        " runs and that this machine may connect."
    )
    assert nothing_sent(registry)


@pytest.mark.parametrize("arguments", [RUN, ("history",), ("mark-notified", "--before", "2026-11-20T09:00:00Z")])
def test_ledger_that_cannot_be_reached(
    command: Command, configure: Configure, closed_port: int, arguments: tuple[str, ...]
) -> None:
    configure(ledger={"url": f"postgresql://writer@127.0.0.1:{closed_port}/ops"})
    assert mistake(command(*arguments), 1) == (
        f"The database of ledger.url (writer@127.0.0.1:{closed_port}/ops) cannot be reached; check that it runs"
        " and that this machine may connect."
    )


def test_database_that_goes_away_while_we_send(
    command: Command,
    configure: Configure,
    registry: Registry,
    postgres_server: EmbeddedPostgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ledger and Dagster's storage are one database: what happened can be noted in neither, and is said once."""
    monkeypatch.setattr("dagster_postgres.utils.time", SimpleNamespace(sleep=lambda _: None))  # it tries for a minute
    someone(registry)
    database = make_url(registry.url).database or ""
    shut = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(database))
    accepted: list[str] = []

    def script(stage: str, argument: str) -> None:
        if stage == "dot":
            accepted.append(argument)
            with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
                connection.execute(shut)
                connection.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = %s", (database,)
                )

    with Smtpd(script=script) as relay:
        configure(relay.port)
        said = command(*RUN)
    assert len(accepted) == 1
    assert (said.status, said.out) == (1, "")
    *dagsters_own, ours = said.err.splitlines()
    assert ours.startswith("The database of ledger.url (postgres@")
    assert ours.endswith(" takes no connections; allow them: ALTER DATABASE … ALLOW_CONNECTIONS true.")
    assert set(dagsters_own) <= {"Exception while writing logger call to event log: too many retries for DB connection"}


@pytest.mark.parametrize("section", ["source", "ledger"])
def test_database_name_that_is_wrong(command: Command, configure: Configure, dagster_url: str, section: str) -> None:
    wrong = make_url(dagster_url).set(database="registri").render_as_string(hide_password=False)
    configure(**{section: {"url": wrong}})
    found = mistake(command(*RUN), 1)
    assert found.startswith(f"The database of {section}.url (postgres@")
    assert found.endswith(
        "/registri) has no such database; check the name after the last / of the URL, or create the database."
    )


def test_relay_that_is_down(command: Command, configure: Configure, registry: Registry, closed_port: int) -> None:
    someone(registry)
    configure(closed_port)
    said = command(*RUN)
    assert mistake(said, 1) == (
        f"The relay 127.0.0.1:{closed_port} refuses connections; check smtp.port, and that the relay runs."
    )
    found = json.loads(said.out)
    assert (found["status"], found["tiers"]["day"]) == ("failure", outcomes(due=1, waiting=1))
    assert nothing_sent(registry)


def test_relay_that_refuses_the_login(
    command: Command, configure: Configure, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    someone(registry)
    monkeypatch.setenv("TOKEN_PIPELINES__SMTP__PASSWORD", "hush-hush")
    with Smtpd(credentials={"mailer": "right"}) as relay:
        configure(relay.port, smtp={"username": "mailer"})
        said = command(*RUN)
        assert mistake(said, 1) == (
            f"The relay 127.0.0.1:{relay.port} refused the login with 535 5.7.8 wrong user or password; check"
            " smtp.username and TOKEN_PIPELINES__SMTP__PASSWORD."
        )
        assert nothing_sent(registry)
        monkeypatch.setenv("TOKEN_PIPELINES__SMTP__PASSWORD", "right")
        assert command(*RUN).status == 0
    assert len(relay.accepted) == 1


def test_template_that_names_something_unknown(
    command: Command, configure: Configure, registry: Registry, tmp_path: Path
) -> None:
    someone(registry)
    path = configure()
    templates = tmp_path / "templates"
    subprocess.run(["cp", "-r", _shipped_templates(path), templates], check=True)
    subject = templates / "token-expiring" / "subject.txt"
    subject.write_text(subject.read_text() + "{{ nonsense }}")
    configure(email={"templates": "templates"})
    assert "nonsense" in mistake(command(*RUN), 2)
    assert nothing_sent(registry)


def _shipped_templates(path: Path) -> str:
    import yaml  # noqa: PLC0415 -- for this one value

    return str(yaml.safe_load(path.read_text())["email"]["templates"])


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
