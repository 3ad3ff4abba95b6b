"""The command ``bounces``: delivery reports and complaints from files, mboxes or maildirs. Never prints an address."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from token_pipelines.cli.opening import opened_ledger
from token_pipelines.cli.options import CONFIG_OPTION
from token_pipelines.cli.output import print_json, say
from token_pipelines.clock import system_clock
from token_pipelines.printable import printable


class _Mail(click.ParamType[Path]):
    """A file, an mbox, a maildir, or - for standard input."""

    name = "file|maildir"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:  # noqa: ANN401 -- click's hook
        from token_pipelines.feedback.bounces.mailboxes import STANDARD_INPUT, is_maildir

        path = Path(value)
        if path == STANDARD_INPUT:
            return path
        if not path.exists():
            self.fail(f"{printable(path)} does not exist.", param, ctx)
        if path.is_dir() and not is_maildir(path):
            self.fail(f"{printable(path)} is no maildir: it has no cur and new; name its files instead.", param, ctx)
        return path


@click.command()
@CONFIG_OPTION
@click.argument("mail", metavar="FILE|MAILDIR...", nargs=-1, required=True, type=_Mail())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def bounces(path: Path, mail: tuple[Path, ...], *, as_json: bool) -> int:
    """Read delivery reports: what came back counts as failed.

    Reads files, mboxes and maildirs, and changes none of them. Reading a report twice counts it once. A complaint
    suppresses the address. What came back is believed when most of what the same run sent did not.
    """
    from token_pipelines.feedback.bounces.reading import read_bounces

    with opened_ledger(path) as ledger:
        counts = read_bounces(ledger, mail, clock=system_clock, on_warning=lambda text: say(text, err=True))
    if as_json:
        print_json(asdict(counts))
    else:
        say(
            f"{counts.read:,} messages read, {counts.seen:,} of them seen before, {counts.matched:,} about our notices:"
            f" {counts.recorded:,} new failures, {counts.unbelieved:,} not believed, {counts.complaints:,} complaints, "
            f"{counts.suppressed:,} addresses suppressed, {counts.delayed:,} only delayed. About no notice: "
            f"{counts.unmatched:,}. No delivery report: {counts.not_reports:,}."
        )
    return 0 if counts.complete else 1
