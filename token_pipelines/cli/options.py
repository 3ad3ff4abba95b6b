"""Options that several commands share, and the types of their values."""

from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from token_pipelines import shipped
from token_pipelines.instants import parse_day, parse_instant

_Command = TypeVar("_Command", bound=Callable[..., Any])
_CHOSEN: Final = "token_pipelines.pipeline"
"""The key in a command's context for the name given with --pipeline."""

FILE_OPTION = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=shipped.CONFIG,
    show_default=True,
    help="The configuration file.",
)


def _choose(context: click.Context, _parameter: click.Parameter, name: str | None) -> None:
    context.meta[_CHOSEN] = name


_PIPELINE_OPTION = click.option(
    "--pipeline",
    metavar="NAME",
    callback=_choose,
    expose_value=False,
    help="Which of the file's pipelines, where it holds several.",
)


def CONFIG_OPTION(command: _Command) -> _Command:  # noqa: N802 -- used as the option that it stands for
    """The options of a command that works on one pipeline: the file, and which of its pipelines.

    The command gets the path only. `cli.opening` asks `chosen_pipeline` for the name, so no command can forget it.
    """
    return FILE_OPTION(_PIPELINE_OPTION(command))


def chosen_pipeline() -> str | None:
    """The name that the running command was given with --pipeline."""
    name: str | None = click.get_current_context().meta.get(_CHOSEN)
    return name


class Instant(click.ParamType[datetime]):
    """An instant with its zone, as ``2026-11-20T09:00:00Z``."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:  # noqa: ANN401 -- click's hook
        """Read what was typed."""
        try:
            return parse_instant(str(value))
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


class Day(click.ParamType[date]):
    """A day, as ``2026-11-20``."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:  # noqa: ANN401 -- click's hook
        """Read what was typed."""
        try:
            return parse_day(str(value), like="2026-11-20")
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)
