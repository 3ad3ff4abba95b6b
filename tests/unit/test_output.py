"""What a command prints: into a closed pipe, in an encoding that is not UTF-8, as a table in a narrow terminal."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from token_pipelines.cli import output

PROGRAM = """
import sys
import click
from token_pipelines.cli import main, output

@main.cli.command()
def many():
    for number in range(100_000):
        output.print_json({"number": number})

@main.cli.command()
def table():
    from rich.table import Table
    table = Table()
    table.add_column("Name", no_wrap=True)
    for number in range(5_000):
        table.add_row(f"Zo\\u00eb \\u2026 {number}")
    output.print_table(table)

@main.cli.command()
def lost():
    raise BrokenPipeError("a server's")

main._Commands.get_command = lambda self, ctx, name: self.commands.get(name)
main._Commands.format_commands = lambda self, ctx, formatter: formatter.write("x" * 200_000)
main.main()
"""


def start(command: str, stdout: int, **environment: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, command],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
    )


@pytest.mark.parametrize("command", ["many", "table", "--help", "--version"])
def test_closed_pipe_ends_a_command_quietly(command: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = start(command, writing)
    os.close(writing)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (output.READER_GONE, b"")


def test_closed_pipe_after_the_first_lines_ends_a_command_quietly() -> None:
    with start("many", subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b'{"version": 1, "number": 0}\n'
        process.stdout.close()
        assert process.stderr is not None
        assert (process.stderr.read(), process.wait(timeout=60)) == (b"", output.READER_GONE)


def test_other_connection_that_breaks_is_no_reader_that_has_gone() -> None:
    process = start("lost", subprocess.PIPE)
    process.communicate(timeout=60)
    assert process.returncode == 1


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
)
def test_output_that_is_not_utf_8_is_escaped(environment: dict[str, str]) -> None:
    out, err = start("table", subprocess.PIPE, **environment).communicate(timeout=60)
    assert b"\\u2026 4999" in out
    assert err == b""


def printed(monkeypatch: pytest.MonkeyPatch, table: Table, *, terminal: bool, width: int = 40) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    if terminal:
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    output.print_table(table)
    return stream.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize(
    "name", ["a_tier_with_a_name_of_more_than_forty_characters", "an id  with [red]blanks[/red] :x:"]
)
def test_what_identifies_a_row_is_never_cut(monkeypatch: pytest.MonkeyPatch, name: str, *, terminal: bool) -> None:
    table = Table(title="A title")
    table.add_column("Tier", no_wrap=True)
    for number in range(12):
        table.add_column(f"Column {number}", overflow="fold")
    table.add_row(name, *["some words and numbers"] * 12)
    assert name in printed(monkeypatch, table, terminal=terminal)


def test_piped_table_has_no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(title="A title that is wider than the terminal that is not there at all")
    table.add_column("Words")
    table.add_row("some words " * 30 + "end")
    lines = printed(monkeypatch, table, terminal=False).splitlines()
    assert len(lines) == 6
    assert "some words " * 30 + "end" in lines[4]


def test_numbers_stay_on_the_right(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table()
    table.add_column("Sent", justify="right", no_wrap=True)
    table.add_row("7")
    assert "│    7 │" in printed(monkeypatch, table, terminal=False)


def test_every_command_prints_through_one_place() -> None:
    """A Console of one's own would have a width, markup and an exit status of its own."""
    for path in Path(output.__file__).parent.glob("*.py"):
        assert "Console(" not in path.read_text(encoding="utf-8").replace("class _Console(Console)", "").replace(
            "return _Console(", ""
        ), path.name
