"""What several commands of the command line share: the options that name the config and a pipeline, and opening it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from token_pipelines.config import DEFAULT_PATH, Config, load

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
    from token_pipelines.demo import environment  # noqa: PLC0415 -- the demo's libraries are an extra

    config = chosen_config(path)
    if config.name is None and environment.is_demo(config):
        with environment.serving(path) as servers:
            yield servers.config
    else:
        yield config
