"""The command ``forecast``: how many notices are coming, as a table with a plot in it, or as JSON."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from token_pipelines.cli.opening import opened_pipeline
from token_pipelines.cli.options import CONFIG_OPTION
from token_pipelines.cli.output import make_console, print_json, print_table, say

if TYPE_CHECKING:
    from token_pipelines.operations.forecasting import ForecastDay

LONGEST: Final = 366
BLOCKS: Final = "█▓▒░"
ASCII_BLOCKS: Final = "#=-."
"""One for each tier's part of a day's bar, most urgent tier first; a fifth tier takes the first again."""

SHORTEST_BAR: Final = 10
LONGEST_BAR: Final = 40
BORDER: Final = 3
"""How many characters the table puts between two cells."""


@click.command()
@CONFIG_OPTION
@click.option(
    "--days", type=click.IntRange(1, LONGEST), default=14, show_default=True, help="How many days, with today."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def forecast(path: Path, days: int, *, as_json: bool) -> int:
    """How many notices each tier will send on each coming day.

    Supposes that every run is on time, and that no token is issued, renewed or revoked meanwhile. Sends nothing and
    writes nothing.
    """
    from token_pipelines.operations import forecasting

    with opened_pipeline(path) as pipeline:
        coming = forecasting.forecast(pipeline, days=days, on_warning=lambda sentence: say(sentence, err=True))
        config = pipeline.config
    limit, named = config.delivery.max_notices, {"pipeline": config.name} if config.name else {}
    if as_json:
        print_json({**named, "days": [_as_object(day) for day in coming]})
    else:
        _show(coming, limit)
    return 0


def _as_object(day: "ForecastDay") -> dict[str, object]:
    return {"date": day.day.isoformat(), "tiers": day.tiers, "notices": day.notices}


def _show(coming: "Sequence[ForecastDay]", limit: int) -> None:
    """A row with a bar for each day, and a line for each day that the fuse would hold."""
    from rich.table import Table

    console = make_console()
    blocks = BLOCKS if console.encoding.lower().startswith("utf") else ASCII_BLOCKS
    marks = dict(zip(coming[0].tiers, cycle(blocks), strict=False))
    most = max(day.notices for day in coming)
    total = sum(day.notices for day in coming)
    table = Table(title=f"{total:,} notices in {len(coming)} day{'s' if len(coming) > 1 else ''}")
    table.add_column("Day", no_wrap=True)
    for tier, mark in marks.items():
        table.add_column(f"{mark}\n{tier}", justify="right", no_wrap=True)
    table.add_column("Notices", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    numbers = [
        [
            f"{day.day:%a} {day.day}",
            *(f"{count:,}" if count else "" for count in day.tiers.values()),
            f"{day.notices:,}",
        ]
        for day in coming
    ]
    headers = ["Day", *marks, "Notices"]
    taken = [max(map(len, column)) for column in zip(headers, *numbers, strict=True)]
    room = console.width - sum(taken) - BORDER * (len(taken) + 1) - 1
    width = max(SHORTEST_BAR, min(room, LONGEST_BAR))
    for day, row in zip(coming, numbers, strict=True):
        table.add_row(*row, _bar(day, marks, width / most if most else 0))
    print_table(table)
    for day in coming:
        if day.notices > limit:
            say(f"{day.day}: over delivery.max_notices of {limit:,}; the fuse holds the day until you approve it.")


def _bar(day: "ForecastDay", marks: dict[str, str], scale: float) -> str:
    """The day's tiers side by side, ``scale`` characters for each notice. Sums are rounded, so parts add up."""
    bar = ""
    so_far = 0
    for tier, count in day.tiers.items():
        so_far += count
        bar += marks[tier] * (round(scale * so_far) - len(bar))
    return bar
