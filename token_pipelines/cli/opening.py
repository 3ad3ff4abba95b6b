"""Opens what a command works on: the config of the pipeline that it names, and that pipeline's ledger."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from token_pipelines.cli.options import chosen_pipeline
from token_pipelines.config import Config, load
from token_pipelines.ledger.ledger import Ledger


def chosen_config(path: Path) -> Config:
    """The config of the pipeline that the command line names.

    Raises:
        ConfigError: if the file holds several and none was named, or no such one.
    """
    return load(path, chosen_pipeline())


@contextmanager
def opened_config(path: Path) -> Iterator[Config]:
    """The config of the named pipeline; while the block runs, the demo's servers run where the config needs them.

    Raises:
        DemoError: if they cannot be started, or their packages are not installed.
    """
    config = chosen_config(path)
    if config.name is None and config.is_demo:
        from token_pipelines.demo import environment  # noqa: PLC0415 -- its packages are an extra

        with environment.serving(path) as servers:
            yield servers.config
    else:
        yield config


@contextmanager
def opened_ledger(path: Path) -> Iterator[Ledger]:
    """The ledger of the named pipeline, with its schema up to date."""
    with opened_config(path) as config, closing(Ledger.of(config)) as ledger:
        ledger.migrate()
        yield ledger
