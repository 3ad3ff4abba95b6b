"""What several commands of the command line share: the options that name the config and a pipeline, and opening it."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from token_pipelines.config import DEFAULT_PATH, Config, load
from token_pipelines.demo import environment
from token_pipelines.ledger.ledger import Ledger
from token_pipelines.pipeline import Pipeline

_Command = TypeVar("_Command", bound=Callable[..., Any])
_CHOSEN: Final = "token_pipelines.pipeline"
"""Under this key a command's context keeps the name given with --pipeline."""

FILE_OPTION = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=DEFAULT_PATH,
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

    The command is handed the path alone; `chosen_config` and `opened_config` know the name, so that no command can
    forget to pass it on.
    """
    return FILE_OPTION(_PIPELINE_OPTION(command))


def chosen_config(path: Path) -> Config:
    """The config of the pipeline that the command line names.

    Raises:
        ConfigError: if the file holds several and none was named, or no such one.
    """
    return load(path, click.get_current_context().meta.get(_CHOSEN))


@contextmanager
def opened_config(path: Path) -> Iterator[Config]:
    """The config of the named pipeline, with the demo's servers running where it speaks of them."""
    config = chosen_config(path)
    if config.name is None and environment.is_demo(config):
        with environment.serving(path) as servers:
            yield servers.config
    else:
        yield config


@contextmanager
def opened_pipeline(path: Path) -> Iterator[Pipeline]:
    """The named pipeline, whose connections are closed at the end."""
    with opened_config(path) as config, closing(Pipeline(config)) as pipeline:
        yield pipeline


@contextmanager
def opened_ledger(path: Path) -> Iterator[Ledger]:
    """The ledger of the named pipeline, with its schema up to date."""
    with opened_config(path) as config, closing(Ledger.of(config)) as ledger:
        ledger.migrate()
        yield ledger


class Instant(click.ParamType[datetime]):
    """An instant with its zone, as ``2026-11-20T09:00:00Z``."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:  # noqa: ANN401 -- click's hook
        """Read what was typed."""
        try:
            instant = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not an instant; write it like 2026-11-20T09:00:00Z.", param, ctx)
        if instant.tzinfo is None:
            self.fail(f"{value!r} has no time zone; write it like 2026-11-20T09:00:00Z.", param, ctx)
        return instant.astimezone(UTC)


class Day(click.ParamType[date]):
    """A day, as ``2026-11-20``."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:  # noqa: ANN401 -- click's hook
        """Read what was typed."""
        try:
            return date.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a day; write it like 2026-11-20.", param, ctx)
