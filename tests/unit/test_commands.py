"""The table of commands agrees with the commands, and a command imports the product only when it runs."""

import subprocess
import sys
from importlib import import_module

import click
import pytest

from token_pipelines.cli.main import COMMANDS, cli


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_what_the_table_says(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
    assert command.help is not None
    assert command.help.partition("\n")[0] == COMMANDS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_a_module_of_its_own(name: str) -> None:
    module = import_module(f"token_pipelines.cli.{name.replace('-', '_')}")
    assert module.__doc__ is not None
    assert f"``{name}" in module.__doc__


IMPORTED = """
import sys
from importlib import import_module
for name in sys.argv[1].split(): import_module(f"token_pipelines.{name}")
print(*{name.partition(".")[0] for name in sys.modules})
"""


def imported(*modules: str) -> set[str]:
    """The packages that these modules import, in a process of their own."""
    command = [sys.executable, "-c", IMPORTED, " ".join(modules)]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


HEAVY = {"aiosmtpd", "alembic", "babel", "dagster", "jinja2", "pandas", "pydantic", "sqlalchemy", "yaml"}


def test_help_of_every_command_imports_nothing_heavy() -> None:
    assert not imported("cli.main", *(f"cli.{name.replace('-', '_')}" for name in COMMANDS)) & HEAVY


def test_commands_on_the_ledger_import_neither_pandas_nor_dagster() -> None:
    """As `history`, `suppress` and `bounces` do."""
    found = imported("ledger.ledger", "feedback.bounces.reading")
    assert "sqlalchemy" in found
    assert not found & {"dagster", "pandas", "pyarrow", "jinja2"}
