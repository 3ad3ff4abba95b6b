"""The command ``history``: what the ledger says of days, tokens and people."""

from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any, Final

import click

from token_pipelines.cli.opening import opened_ledger
from token_pipelines.cli.options import CONFIG_OPTION, Day
from token_pipelines.cli.output import print_json, print_table, say
from token_pipelines.printable import printable

IDENTIFYING: Final = ("Day", "Tier", "Recipient", "Tokens", "Sent at")
"""Columns that are never cut or broken: what they say is looked for."""

TOKENS_SHOWN: Final = 3
ANSWER_SHOWN: Final = 160
"""Characters: most replies are shorter, and say first what matters."""


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
            _show(entries)
    return 0


def _show(entries: Iterable[dict[str, Any]]) -> None:
    """A row per notice: its first tokens, and what the relay answered last."""
    from rich.table import Table

    table = Table()
    for column in ("Day", "Tier", "State", "Reason", "Recipient", "Tokens", "Sent at", "Tries", "Last answer"):
        table.add_column(column, no_wrap=column in IDENTIFYING, overflow="fold")
    for entry in entries:
        tokens = _first([printable(token["token_id"]) for token in entry["tokens"]])
        state = entry["state"] if entry["mode"] == "live" else f"{entry['state']} ({entry['mode']})"
        who, when = printable(entry["recipient_id"]), entry["sent_at"] or ""
        tries = str(len(entry["attempts"]))
        reason, answer = entry["reason"] or "", _answer(entry["attempts"][-1]) if entry["attempts"] else ""
        table.add_row(entry["date"], entry["tier"], state, reason, who, tokens, when, tries, answer)
    if table.row_count:
        print_table(table)
    else:
        say("The ledger holds nothing that fits.")


def _first(token_ids: list[str]) -> str:
    """The first few ids, a line each, and how many more there are: --json has them all."""
    more = len(token_ids) - TOKENS_SHOWN
    return "\n".join([*token_ids[:TOKENS_SHOWN], *([f"and {more:,} more"] if more > 0 else [])])


def _answer(attempt: dict[str, Any]) -> str:
    """What the relay said in an attempt, on one line: its code, its enhanced code and its words."""
    reply = attempt["reply"] or ""
    known = [str(attempt["code"] or ""), "" if (attempt["enhanced"] or "") in reply else attempt["enhanced"], reply]
    line = " ".join(filter(None, known))
    shown = printable(line)
    return shown if len(shown) <= ANSWER_SHOWN else f"{shown[: ANSWER_SHOWN - 1]}…"
