"""The command ``doubt`` and its subcommands: a person decides the notices in doubt that no run sends again."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from token_pipelines.cli.opening import opened_pipeline
from token_pipelines.cli.options import CONFIG_OPTION
from token_pipelines.cli.output import print_json, print_table, say
from token_pipelines.clock import system_clock
from token_pipelines.errors import ConfigError
from token_pipelines.printable import printable

if TYPE_CHECKING:
    from token_pipelines.ledger.doubt import Doubt, Rules
    from token_pipelines.pipeline import Pipeline

_IDS = click.argument("notice_ids", metavar="NOTICE_ID...", nargs=-1)
_ALL = click.option("--all", "every", is_flag=True, help="All that `doubt list` shows, instead of ids.")


@click.group()
def doubt() -> None:
    """Notices in doubt that wait for a person: send them again, or count them as told.

    No answer came after such a message: it may have arrived. It waits for a person with delivery.on_unknown: hold,
    after delivery.max_attempts, and when its tiers are over.
    """


@doubt.command(name="list")
@CONFIG_OPTION
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line on stdout.")
def list_(path: Path, *, as_json: bool) -> int:
    """Show the notices that wait for a person, and why each one does."""
    from rich.table import Table

    table = Table()
    for column in ("Notice", "Planned for", "Tier", "Recipient", "Tokens", "Tries", "Why"):
        table.add_column(column, no_wrap=True)
    with _opened(path) as (pipeline, rules):
        held = pipeline.ledger.doubt.held(rules)
        entries: Iterable[dict[str, Any]] = pipeline.ledger.history.entries(notice_ids=held)
        for entry in entries:
            why = str(held[entry["notice_id"]])
            if as_json:
                print_json({**entry, "why": why})
                continue
            tokens, tries = (str(len(entry[key])) for key in ("tokens", "attempts"))
            table.add_row(
                entry["notice_id"], entry["date"], entry["tier"], printable(entry["recipient_id"]), tokens, tries, why
            )
    if not as_json and held:
        print_table(table)
    elif not as_json:
        say("No notice waits for a person.")
    return 0


@doubt.command()
@CONFIG_OPTION
@_IDS
@_ALL
def resend(path: Path, notice_ids: tuple[str, ...], *, every: bool) -> int:
    """Let the next run send these notices again: they did not arrive."""
    from token_pipelines.ledger.doubt import Held

    with _opened(path) as (pipeline, rules):
        doubt = pipeline.ledger.doubt
        chosen = _chosen(doubt, notice_ids, rules, every=every)
        over = {each for each, why in doubt.held(rules).items() if why is Held.OVER} & chosen
        if over and not every:
            msg = (
                f"The tiers of {', '.join(sorted(over))} are over, so no run would send it; nothing was done. Leave it "
                "out, or use `token-pipelines doubt accept`."
            )
            raise ConfigError(msg)
        count = doubt.resend(chosen - over, at=system_clock())
    say(f"The next run sends {_notices(count)} again.")
    if over:
        say(f"Left alone: {_notices(len(over))} whose tiers are over.")
    return 0


@doubt.command()
@CONFIG_OPTION
@_IDS
@_ALL
def accept(path: Path, notice_ids: tuple[str, ...], *, every: bool) -> int:
    """Count these notices as sent: they arrived, or need not be sent."""
    with _opened(path) as (pipeline, rules):
        doubt = pipeline.ledger.doubt
        count = doubt.accept(_chosen(doubt, notice_ids, rules, every=every), at=system_clock())
    say(f"{_notices(count)} now count{'s' if count == 1 else ''} as sent.")
    return 0


@contextmanager
def _opened(path: Path) -> "Iterator[tuple[Pipeline, Rules]]":
    """The named pipeline, and the rules by which its notices in doubt are sent again."""
    from token_pipelines.ledger.doubt import Rules

    with opened_pipeline(path) as pipeline:
        pipeline.ledger.migrate()
        delivery = pipeline.config.delivery
        yield (
            pipeline,
            Rules(
                mode=delivery.mode,
                resend=delivery.on_unknown == "resend",
                max_attempts=delivery.max_attempts,
                since=pipeline.leftovers_since(pipeline.clock()),
            ),
        )


def _chosen(doubt: "Doubt", notice_ids: tuple[str, ...], rules: "Rules", *, every: bool) -> set[str]:
    """The notices to decide.

    Raises:
        ConfigError: if there are ids and --all, or neither; or if one is not in doubt. Then nothing is done.
    """
    if every == bool(notice_ids):
        msg = "Name the notices by their ids, or all of them by --all; `token-pipelines doubt list` shows them."
        raise ConfigError(msg)
    if every:
        return set(doubt.held(rules))
    ids = {_id(given) for given in notice_ids}
    unknown = sorted(ids - doubt.in_doubt(ids, rules))
    if unknown:
        msg = (
            f"Notice {unknown[0]} is not in doubt; nothing was done. `token-pipelines doubt list` shows those that are."
        )
        raise ConfigError(msg)
    return ids


def _id(given: str) -> str:
    try:
        return str(UUID(given))
    except ValueError:
        msg = "A notice's id looks like 01234567-89ab-cdef-0123-456789abcdef; `token-pipelines doubt list` shows them."
        raise ConfigError(msg) from None


def _notices(count: int) -> str:
    return f"{count:,} notice{'' if count == 1 else 's'}"
