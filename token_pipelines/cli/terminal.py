"""What ``run`` and ``demo`` show a person: a progress display on a terminal, and a day's numbers as a table."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from token_pipelines.cli.output import make_console, print_table, say
from token_pipelines.defs.day_report import DayReport
from token_pipelines.defs.numbers import OUTCOMES


@contextmanager
def progress() -> Iterator[Callable[[str, int], None]]:
    """A progress display while the block runs, if stderr is a terminal.

    Yields the function to call with a tier's name and how many of its notices are done.
    """
    console = make_console(stderr=True)
    if not sys.stderr.isatty():
        yield lambda _tier, _done: None
        return
    count = TextColumn("{task.completed} notices")
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        count,
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as display:
        tasks: dict[str, Any] = {"": display.add_task("Reading and planning", total=None)}

        def show(tier: str, done: int) -> None:
            if tier not in tasks:
                display.update(tasks[""], visible=False)
                tasks[tier] = display.add_task(f"Sending {tier}", total=None)
            display.update(tasks[tier], completed=done)

        yield show


def show_report(report: DayReport) -> None:
    """A day's numbers: a row per tier that was run, then why some were skipped. No zeros for what was not done."""
    of = f"{report.pipeline}, " if report.pipeline else ""
    title = f"{of}{report.day} ({report.mode}): "
    if not report.is_read:
        say(f"{title}no tokens were read, and nobody was told.")
        return
    title += f"{report.examined:,} tokens examined, {report.due:,} due tokens"
    known = {name: tier for name, tier in report.tiers.items() if tier.is_known}
    if not known:
        say(f"{title}; no tier was run, and nobody was told.")
        return
    table = Table(title=f"{title}; below, notices")
    table.add_column("Tier", no_wrap=True)
    for outcome in (*OUTCOMES, "skipped"):
        table.add_column(outcome.capitalize(), justify="right", no_wrap=True)
    reasons: Counter[str] = Counter()
    for name, tier in known.items():
        numbers = [*(tier.outcomes[outcome] for outcome in OUTCOMES), sum(tier.skipped.values())]
        table.add_row(name, *(f"{number:,}" for number in numbers))
        reasons.update(tier.skipped)
    print_table(table)
    for name in [name for name in report.tiers if name not in known]:
        say(f"Not run: {name}")
    if reasons:
        listed = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
        say(f"Skipped: {listed}")
