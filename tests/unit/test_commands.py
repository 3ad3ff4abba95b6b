"""The table of commands agrees with the commands, and a command imports no more than it needs."""

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
for name in sys.argv[1].split(): import_module(f"token_pipelines.cli.{name}")
print(*{name.partition(".")[0] for name in sys.modules})
"""


def imported(*modules: str) -> set[str]:
    """The packages that these modules of ``cli`` import, in a process of their own."""
    command = [sys.executable, "-c", IMPORTED, " ".join(modules)]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_list_of_commands_imports_no_command() -> None:
    assert not imported("main") & {"dagster", "pandas", "sqlalchemy", "pydantic", "rich", "yaml"}


def test_command_on_the_ledger_imports_neither_dagster_nor_templates() -> None:
    found = imported("history", "suppress", "bounces", "mark_notified")
    assert "sqlalchemy" in found
    assert not found & {"dagster", "jinja2", "babel", "aiosmtpd"}


def test_only_run_and_demo_import_dagster() -> None:
    assert "dagster" not in imported("forecast", "preview", "source")
