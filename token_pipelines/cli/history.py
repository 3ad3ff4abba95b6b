"""The command ``history``: what the ledger says of days, tokens and people."""

from datetime import date
from pathlib import Path

import click

from token_pipelines.cli import terminal
from token_pipelines.cli.options import CONFIG_OPTION, Day, opened_ledger
from token_pipelines.cli.output import print_json


@click.command()
@CONFIG_OPTION
@click.option("--date", "day", type=Day(), help="Only notices planned on this day.")
@click.option("--token", "token_id", help="Only notices about this token.")
@click.option("--recipient", "recipient_id", help="Only notices to this recipient.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line on stdout.")
def history(path: Path, day: date | None, token_id: str | None, recipient_id: str | None, *, as_json: bool) -> int:
    """What the ledger says: was this person warned, and when?"""
    with opened_ledger(path) as ledger:
        entries = ledger.history.entries(day=day, token_id=token_id, recipient_id=recipient_id)
        if as_json:
            for entry in entries:
                print_json(entry)
        else:
            terminal.show_history(entries)
    return 0
