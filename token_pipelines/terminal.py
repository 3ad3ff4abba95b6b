"""What the command line shows a person: a progress bar on a terminal, tables, never an address."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from token_pipelines.defs.launch import DayReport


@contextmanager
def progress() -> Iterator[Callable[[str, int], None]]:
    """A progress display on stderr while the block runs, if that is a terminal; yields what to tell it."""
    console = Console(stderr=True)
    if not sys.stderr.isatty():
        yield lambda _tier, _done: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} notices"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as display:
        tasks: dict[str, Any] = {"": display.add_task("Reading and planning", total=None)}

        def tell(tier: str, done: int) -> None:
            if tier not in tasks:
                display.update(tasks[""], visible=False)
                tasks[tier] = display.add_task(f"Sending {tier}", total=None)
            display.update(tasks[tier], completed=done)

        yield tell


def show_report(report: DayReport) -> None:
    """A day's numbers: a row per tier."""
    table = Table(title=f"{report.day} ({report.mode}): {report.examined:,} tokens examined, {report.due:,} due")
    for column in ("Tier", "Due", "Sent", "Deferred", "Failed", "Unknown", "Waiting", "Skipped"):
        table.add_column(column, justify="left" if column in {"Tier", "Skipped"} else "right")
    for name, tier in report.tiers.items():
        skipped = ", ".join(f"{reason} {count:,}" for reason, count in tier.skipped.items())
        table.add_row(name, *(f"{tier.outcomes[outcome]:,}" for outcome in ("due", "sent", "deferred", "failed", "unknown", "waiting")), skipped or "-")
    Console().print(table)


def show_history(entries: Iterable[dict[str, Any]]) -> None:
    """A line per notice."""
    table = Table()
    for column in ("Day", "Tier", "State", "Reason", "Recipient", "Tokens", "Sent at", "Tries"):
        table.add_column(column)
    for entry in entries:
        tokens = ", ".join(token["token_id"] for token in entry["tokens"])
        state = entry["state"] if entry["mode"] == "live" else f"{entry['state']} ({entry['mode']})"
        table.add_row(entry["date"], entry["tier"], state, entry["reason"] or "", entry["recipient_id"], tokens, entry["sent_at"] or "", str(len(entry["attempts"])))
    Console().print(table if table.row_count else "The ledger holds nothing that fits.")
