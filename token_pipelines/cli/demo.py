"""The command ``demo``: a sample registry, the runs of three past days and today, the inbox, the Dagster UI."""

from pathlib import Path
from typing import Final

import click

from token_pipelines.cli.options import FILE_OPTION

UI_PORT: Final = 3000


@click.command()
@FILE_OPTION
@click.option("--once", is_flag=True, help="Exit after the runs.")
@click.option("--port", default=UI_PORT, show_default=True, help="Where to serve the Dagster UI, on loopback.")
def demo(path: Path, *, once: bool, port: int) -> int:
    """Try it: a sample registry, an inbox, four days, the Dagster UI."""
    from token_pipelines.cli.demo_steps import show

    return show(path, once=once, port=port)
