"""What several commands of the command line share: the option that names the config, and opening it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from token_pipelines.config import DEFAULT_PATH, Config, load

CONFIG_OPTION = click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    default=DEFAULT_PATH,
    show_default=True,
    help="The configuration file.",
)


@contextmanager
def opened_config(path: Path) -> Iterator[Config]:
    """The config, with the demo's servers running where it speaks of them."""
    from token_pipelines.demo import environment  # noqa: PLC0415 -- the demo's libraries are an extra

    config = load(path)
    if environment.is_demo(config):
        with environment.serving(path) as servers:
            yield servers.config
    else:
        yield config
