"""Opens what a command works on: the config of the pipeline that it names, that pipeline, its ledger.

Imports the product only when something is opened: help, and a mistake in the command line, are answered at once.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from token_pipelines.cli.options import chosen_pipeline

if TYPE_CHECKING:
    from token_pipelines.config import Config
    from token_pipelines.ledger.ledger import Ledger
    from token_pipelines.pipeline import Pipeline


def chosen_config(path: Path) -> "Config":
    """The config of the pipeline that the command line names.

    Raises:
        ConfigError: if the file holds several and none was named, or no such one.
    """
    from token_pipelines.config import load

    return load(path, chosen_pipeline())


@contextmanager
def opened_config(path: Path) -> "Iterator[Config]":
    """The config of the named pipeline; while the block runs, the demo's servers run where the config needs them.

    Raises:
        DemoError: if they cannot be started, or their packages are not installed.
    """
    config = chosen_config(path)
    if config.name is None and config.is_demo:
        from token_pipelines.demo import environment

        with environment.serving(path) as servers:
            yield servers.config
    else:
        yield config


@contextmanager
def opened_pipeline(path: Path) -> "Iterator[Pipeline]":
    """The named pipeline. Its connections are closed at the end."""
    from token_pipelines.pipeline import Pipeline

    with opened_config(path) as config, closing(Pipeline(config)) as pipeline:
        yield pipeline


@contextmanager
def opened_ledger(path: Path) -> "Iterator[Ledger]":
    """The ledger of the named pipeline, with its schema up to date."""
    with opened_config(path) as config, migrated_ledger(config) as ledger:
        yield ledger


@contextmanager
def migrated_ledger(config: "Config") -> "Iterator[Ledger]":
    """The ledger of this pipeline, with its schema up to date. Its connections are closed at the end."""
    from token_pipelines.ledger.ledger import Ledger

    with closing(Ledger.of(config)) as ledger:
        ledger.migrate()
        yield ledger
