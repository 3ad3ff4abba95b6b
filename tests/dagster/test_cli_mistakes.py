"""Mistakes on the command line: each is one sentence with the cure."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url
from support.commands import RUN, Command, Configure, mistake, nothing_sent, outcomes, someone
from support.pipeline import Registry
from support.smtpd import Smtpd

from token_pipelines.definitions import defs as code_location
from token_pipelines.demo.postgres import EmbeddedPostgres
from token_pipelines.errors import ConfigError

ONE_BY_MISTAKE = "SELECT id AS token_id, user_id AS recipient_id FROM api_tokens"


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


def test_storage_of_dagster_by_any_postgres_url(
    command: Command, configure: Configure, dagster_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster itself would take the bare one for another driver, and fail with a syntax error in SQL."""
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", dagster_url)
    configure()
    said = command(*RUN)
    assert (said.status, said.err) == (0, "")


@pytest.mark.usefixtures("bare_environment")
def test_code_location_names_the_driver_and_the_file_by_their_variables(
    configure: Configure, dagster_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Dagster's processes have no option --config."""
    monkeypatch.setenv("TOKEN_PIPELINES_CONFIG", str(tmp_path / "missing.yaml"))
    with pytest.raises(ConfigError) as missing:
        code_location()
    assert str(missing.value) == (
        f"{tmp_path / 'missing.yaml'} does not exist; set the environment variable TOKEN_PIPELINES_CONFIG to your "
        "config's path."
    )
    monkeypatch.setenv("TOKEN_PIPELINES_CONFIG", str(configure()))
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", dagster_url)
    with pytest.raises(ConfigError, match=r"DAGSTER_POSTGRES_URL must begin with postgresql\+psycopg2://"):
        code_location()
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", dagster_url.replace("postgresql://", "postgresql+psycopg2://"))
    assert code_location() is not None
