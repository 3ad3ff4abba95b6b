"""The commands about the operator's own database: ``source check``. They never print an address."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from token_pipelines.cli.opening import opened_pipeline
from token_pipelines.cli.options import CONFIG_OPTION
from token_pipelines.cli.output import print_json, say
from token_pipelines.model import rfc3339
from token_pipelines.printable import printable

if TYPE_CHECKING:
    from token_pipelines.operations.source_check.findings import CheckedToken, SourceCheck


@click.group()
def source() -> None:
    """The database that knows the tokens."""


@source.command()
@CONFIG_OPTION
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def check(path: Path, *, as_json: bool) -> int:
    """Try the source query: its columns, and a few tokens as the pipeline understands them.

    Reads the tokens that expire about now, and a few of them again by id, as is done just before sending. Addresses
    are masked. Writes nothing.
    """
    from token_pipelines.operations.source_check.checking import check_source

    with opened_pipeline(path) as pipeline:
        checked = check_source(pipeline)
        name = pipeline.config.name
    named = {"pipeline": name} if name else {}
    if as_json:
        print_json({**named, **_as_object(checked)})
    else:
        _show(checked)
    return 1 if checked.faults else 0


def _as_object(checked: "SourceCheck") -> dict[str, object]:
    return {
        "now": rfc3339(checked.now),
        "expires_after": rfc3339(checked.window.expires_after),
        "expires_before": rfc3339(checked.window.expires_before),
        "rows": checked.rows,
        "outcomes": dict(checked.outcomes),
        "columns": {"present": checked.present, "missing": checked.missing, "unused": checked.unused},
        "samples": [_token_as_object(token) for token in checked.tokens],
        "faults": checked.faults,
        "advice": checked.advice,
    }


def _token_as_object(token: "CheckedToken") -> dict[str, object]:
    return {
        "token_id": token.token_id,
        "recipient_id": token.recipient_id,
        "token_name": token.token_name,
        "recipient_name": token.recipient_name,
        "address": token.address,
        "created_at": rfc3339(token.created_at),
        "expires_at": rfc3339(token.expires_at),
        "lifetime_seconds": (token.expires_at - token.created_at).total_seconds(),
        "tier": token.tier,
        "threshold": rfc3339(token.threshold) if token.threshold else None,
        "reason": token.reason,
        "why": token.why,
    }


def _show(checked: "SourceCheck") -> None:
    window = f"expire from {_second(checked.window.expires_after)} to {_second(checked.window.expires_before)}"
    say(f"Columns: {', '.join(checked.present)}")
    for name, meaning in checked.missing.items():
        say(f"Without {name}: {meaning}")
    if checked.unused:
        say(f"Not used: {', '.join(checked.unused)}")
    say()
    if checked.tokens:
        counts = ", ".join(f"{outcome} {count:,}" for outcome, count in checked.outcomes.most_common())
        say(f"{checked.rows:,} tokens that {window}, as of {_second(checked.now)}: {counts}")
    else:
        say(f"No tokens that {window}: only the columns were checked.")
    for token in checked.tokens:
        say()
        _show_token(token, checked)
    for sentence in (*checked.faults, *checked.advice):
        say(f"\n{sentence}")


def _show_token(token: "CheckedToken", checked: "SourceCheck") -> None:
    from token_pipelines.mail.remaining import in_words

    left = in_words(token.expires_at, checked.now)
    expires = left if token.expires_at <= checked.now else f"in {left}"
    lives = in_words(token.expires_at, token.created_at)
    say(f"token {printable(token.token_id)}, recipient {printable(token.recipient_id)}")
    say(f"  name       {printable(token.token_name)}")
    say(f"  recipient  {printable(token.recipient_name or '(no name)')}, {printable(token.address or '(no address)')}")
    say(f"  created    {_second(token.created_at)}")
    say(f"  expires    {_second(token.expires_at)}, {expires}; it lives {lives}")
    if token.tier is not None and token.threshold is not None:
        begins = "began" if token.threshold <= checked.now else "begins"
        say(f"  tier       {token.tier}, which {begins} at {_second(token.threshold)}")
    say(f"  result     {token.reason or 'due'}: {token.why}")


def _second(instant: datetime) -> str:
    """An instant without fractions of a second, for people; ``--json`` has it whole."""
    return rfc3339(instant.replace(microsecond=0))
