"""The command line in this process, and databases with Dagster's own tables: making those takes seconds."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dagster import DagsterInstance
from psycopg import sql
from support.commands import Command, Configure, Said
from support.pipeline import Registry, write_config

from token_pipelines import shipped
from token_pipelines.cli import main as cli
from token_pipelines.config import ENV_PREFIX
from token_pipelines.demo.postgres import EmbeddedPostgres
from token_pipelines.demo.registry import create_schema

TEMPLATE = "registry_with_dagster"


@pytest.fixture(scope="session")
def dagster_template(postgres_server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make a database with the registry's empty tables and Dagster's, to be cloned."""
    postgres_server.create_database(TEMPLATE)
    url = postgres_server.url(TEMPLATE)
    with psycopg.connect(url) as connection:
        create_schema(connection)
    home = tmp_path_factory.mktemp("dagster-home")
    (home / "dagster.yaml").write_bytes(shipped.path("dagster.yaml").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_POSTGRES_URL", url.replace("postgresql://", "postgresql+psycopg2://"))
        patch.setenv("DAGSTER_HOME", str(home))
        with DagsterInstance.get():
            pass
    return TEMPLATE


@pytest.fixture
def dagster_url(postgres_server: EmbeddedPostgres, dagster_template: str) -> Iterator[str]:
    """Give the URL of a fresh database with the registry's tables and Dagster's, all empty."""
    name = f"dagster_{os.urandom(6).hex()}"
    postgres_server.create_database(name, dagster_template)
    yield postgres_server.url(name)
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def registry(dagster_url: str) -> Registry:
    """Give a registry to fill, in a database that holds Dagster's tables too."""
    return Registry(dagster_url)


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of ours or of Dagster's is set, and what a command sets is forgotten after the test."""
    for name in ("DAGSTER_HOME", "DAGSTER_POSTGRES_URL", "TOKEN_PIPELINES_CONFIG"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture
def command(
    bare_environment: None,  # noqa: ARG001 -- it is there for what it does
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Command:
    """Run the command line in this process, in the folder ``tmp_path``, with a bare environment."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["token-pipelines", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Said(status=ended.value.code, out=out, err=err)

    return run


@pytest.fixture
def configure(dagster_url: str, tmp_path: Path) -> Configure:
    """Write the config into the folder in which commands run."""

    def write(port: int = 25, **sections: Any) -> Path:  # noqa: ANN401 -- YAML
        return write_config(tmp_path, dagster_url, port, **sections)

    return write
