"""The command ``preview``: every email on made-up tokens, as pages to look at."""

from datetime import UTC, datetime
from pathlib import Path

import click

from token_pipelines.addresses import valid_address
from token_pipelines.cli.opening import chosen_config, opened_config
from token_pipelines.cli.options import CONFIG_OPTION
from token_pipelines.cli.output import say
from token_pipelines.errors import ConfigError


@click.command()
@CONFIG_OPTION
@click.option("--out", "folder", type=click.Path(path_type=Path), help="Where to; .token_pipelines/preview by default.")
@click.option("--send-to", "address", help="Also send a choice of them to this address, through the relay.")
def preview(path: Path, folder: Path | None, address: str | None) -> int:
    """Every email on made-up tokens, as pages to look at.

    Needs no database.
    """
    from token_pipelines.operations.preview import gallery

    if address is not None and not valid_address(address):
        msg = "--send-to needs one address, like you@example.org."
        raise ConfigError(msg)
    config, now = chosen_config(path), datetime.now(UTC)
    index, count = gallery.write(config, folder or config.state_folder / gallery.FOLDER, now=now)
    say(f"{count} emails; look at them at {index.absolute().as_uri()}")
    if address is not None:
        from token_pipelines.operations.preview import test_send

        with opened_config(path) as opened:
            say(f"{test_send.send(opened, address, now=now)} of them were sent.")
    return 0
