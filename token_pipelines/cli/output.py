"""How every command prints: JSON alone on stdout, text that no terminal obeys, tables that never cut an id.

Output that its encoding cannot hold is written with escapes, never refused. A pipe whose reader has gone ends the
command quietly.
"""

import io
import json
import os
import select
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO

import click

from token_pipelines.printable import printable_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

JSON_VERSION: Final = 1
"""Increased when a key changes its meaning or is removed; a new key does not increase it."""

READER_GONE: Final = 141
"""The exit status when the reader of our output has gone: 128 and the number of SIGPIPE, as a shell shows it of cat.

The signal itself is not used: it would also end the process when a relay or a database hangs up.
"""

NO_WIDTH: Final = 1_000_000
"""Characters in a line, where there is no terminal: more than any table has."""


class ReaderGoneError(Exception):
    """Nobody reads what we print. Not an OSError: Click would take that for a status of its own."""


@contextmanager
def noticing_a_closed_pipe() -> Iterator[None]:
    """Tell a reader that has gone from a server that hangs up, and write out what is in the buffers at the end.

    Raises:
        ReaderGoneError: stdout or stderr is a pipe without a reader.
    """
    try:
        yield
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        if any(map(_has_no_reader, (sys.stdout, sys.stderr))):
            raise ReaderGoneError from None
        raise


def discard() -> None:
    """Let the interpreter's own last flush go nowhere, instead of to a pipe that is closed."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if _has_no_reader(stream):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _has_no_reader(stream: TextIO) -> bool:
    """Whether the stream is a pipe or a socket that is closed at its other end."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
    except OSError:  # a stream in memory, as in a test
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def escape_what_cannot_be_encoded() -> None:
    """Write a character by its number where the encoding of the output does not have it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_json(values: Mapping[str, object]) -> None:
    """Print one object on a line of stdout."""
    click.echo(json.dumps({"version": JSON_VERSION, **values}))


def say(text: object = "", *, err: bool = False) -> None:
    """Print text for a person, on stdout or stderr. All commands use this: what others have chosen is made visible."""
    click.echo(printable_lines(text), err=err)


def make_console(*, stderr: bool = False, width: int | None = None) -> "Console":
    """A console that takes text as it is: a name like ``[red]`` is no markup."""
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            raise ReaderGoneError

    return _Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


def print_table(table: "Table") -> None:
    """Print a table on stdout: as wide as it is where there is no terminal, else as narrow as its whole words allow.

    A column with ``no_wrap`` is never cut, even where the lines are then longer than the terminal is wide.
    """
    from rich.measure import Measurement

    if isinstance(table.title, str):
        table.title = printable_lines(table.title)
    for column in table.columns:
        column._cells = [printable_lines(cell) if isinstance(cell, str) else cell for cell in column.cells]  # noqa: SLF001 -- Rich has no other way to change a cell
        if column.no_wrap:
            texts = [column.header, *column.cells]
            column.min_width = max(make_console().measure(text).maximum for text in texts)
    console = make_console()
    needed = Measurement.get(console, console.options.update(width=NO_WIDTH, max_width=NO_WIDTH), table)
    width = max(console.width, needed.minimum) if console.is_terminal else needed.maximum
    if not console.is_terminal and table.title:
        width = max(width, len(str(table.title)))
    make_console(width=width).print(table)
