"""The commands about the operator's own database: ``source check``. They never print an address."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from token_pipelines.cli.opening import opened_pipeline
from token_pipelines.cli.options import CONFIG_OPTION
from token_pipelines.cli.output import print_json
from token_pipelines.model import rfc3339

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
    click.echo(f"Columns: {', '.join(checked.present)}")
    for name, meaning in checked.missing.items():
        click.echo(f"Without {name}: {meaning}")
    if checked.unused:
        click.echo(f"Not used: {', '.join(checked.unused)}")
    click.echo()
    if checked.tokens:
        counts = ", ".join(f"{outcome} {count:,}" for outcome, count in checked.outcomes.most_common())
        click.echo(f"{checked.rows:,} tokens that {window}, as of {_second(checked.now)}: {counts}")
    else:
        click.echo(f"No tokens that {window}: only the columns were checked.")
    for token in checked.tokens:
        click.echo()
        _show_token(token, checked)
    for sentence in (*checked.faults, *checked.advice):
        click.echo(f"\n{sentence}")


def _show_token(token: "CheckedToken", checked: "SourceCheck") -> None:
    from token_pipelines.mail.remaining import in_words

    left = in_words(token.expires_at, checked.now)
    expires = left if token.expires_at <= checked.now else f"in {left}"
    lives = in_words(token.expires_at, token.created_at)
    click.echo(f"token {token.token_id}, recipient {token.recipient_id}")
    click.echo(f"  name       {token.token_name}")
    click.echo(f"  recipient  {token.recipient_name or '(no name)'}, {token.address or '(no address)'}")
    click.echo(f"  created    {_second(token.created_at)}")
    click.echo(f"  expires    {_second(token.expires_at)}, {expires}; it lives {lives}")
    if token.tier is not None and token.threshold is not None:
        begins = "began" if token.threshold <= checked.now else "begins"
        click.echo(f"  tier       {token.tier}, which {begins} at {_second(token.threshold)}")
    click.echo(f"  result     {token.reason or 'due'}: {token.why}")


def _second(instant: datetime) -> str:
    """An instant without fractions of a second, for people; ``--json`` has it whole."""
    return rfc3339(instant.replace(microsecond=0))
