"""Dagster's storage as the daemon and the webserver open it: before any other code of ours runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url
from support.commands import Command
from support.pgbouncerd import OpenPooler
from support.pipeline import DAY, NOW, Registry, write_config
from support.smtpd import Smtpd

from token_pipelines import shipped

OPEN = """
from dagster import DagsterInstance
with DagsterInstance.get() as instance:
    print(instance.get_runs_count(), instance.run_storage.get_runs() == [])
    engine = instance.run_storage._engine
    with engine.connect() as connection:
        shown = "SELECT current_setting('TimeZone'), current_setting('client_encoding')"
        print(connection.exec_driver_sql(shown).one())
"""


def open_instance(home: Path, url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """In a new process, as the webserver does."""
    (home / "dagster.yaml").write_bytes(shipped.path("dagster.yaml").read_bytes())
    bare = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment = bare | variables | {"DAGSTER_HOME": str(home), "DAGSTER_POSTGRES_URL": url}
    command = [sys.executable, "-W", "ignore", "-c", OPEN]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("driver", ["postgresql", "postgresql+psycopg2", "postgresql+psycopg", "postgres"])
def test_variables_of_libpq_change_nothing_whatever_the_driver(dagster_url: str, tmp_path: Path, driver: str) -> None:
    with psycopg.connect(dagster_url, autocommit=True) as connection:
        database = sql.Identifier(str(make_url(dagster_url).database))
        connection.execute(sql.SQL("ALTER DATABASE {} SET TimeZone = 'Asia/Tokyo'").format(database))
    url = dagster_url.replace("postgresql", driver, 1)
    opened = open_instance(tmp_path, url, PGTZ="nonsense", PGCLIENTENCODING="nonsense", PGDATESTYLE="nonsense")
    assert (opened.returncode, opened.stdout) == (0, "0 True\n('UTC', 'UTF8')\n"), opened.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            "-c search_path=nowhere",
            "has no schema in which tables can be made; check search_path: in PGOPTIONS, in the",
        ),
        ("-c nonsense=1", "refused a setting of this session; check PGOPTIONS, PGCLIENTENCODING, PGTZ and PGDATESTYLE"),
    ],
)
def test_options_that_cannot_work_are_named(database_url: str, tmp_path: Path, options: str, said: str) -> None:
    opened = open_instance(tmp_path, database_url, PGOPTIONS=options)
    assert opened.returncode == 1
    assert said in opened.stderr.splitlines()[-1]


def test_url_of_another_database_is_named(tmp_path: Path) -> None:
    opened = open_instance(tmp_path, "mysql://me:hush@localhost/dagster")
    assert "DAGSTER_POSTGRES_URL must be a Postgres database" in opened.stderr.splitlines()[-1]
    assert "hush" not in opened.stderr


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_command_runs_a_day_with_everything_behind_a_pooler(
    pgbouncer: OpenPooler, registry: Registry, command: Command, tmp_path: Path, relay: Smtpd, mode: str
) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 2 * DAY)
    url = pgbouncer(mode=mode).url(registry.url)
    write_config(tmp_path, url, relay.port)
    for sent in (1, 0):
        said = command("run", "--json", "--date", NOW.date().isoformat(), "--now", NOW.isoformat())
        assert (said.status, said.err) == (0, "")
        assert json.loads(said.out)["tiers"]["day"]["sent"] == sent
    assert len(relay.accepted) == 1
