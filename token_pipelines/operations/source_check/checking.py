"""Tries the operator's query: its columns, and a few tokens with their tiers and reasons. `findings` has the results.

Reads a small window of expiries, and a few of its tokens again by id; tries the statement that is run after sending.
Changes nothing.
"""

import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

import pandas as pd

from token_pipelines.errors import ConfigError, LedgerError, SourceError
from token_pipelines.model import Reason, explain_unreadable
from token_pipelines.operations.source_check.findings import (
    NOBODY,
    SourceCheck,
    checked_token,
    lost_by_id,
    misspelt_columns,
    slow_by_id,
)
from token_pipelines.pipeline import Pipeline
from token_pipelines.policy import Window, no_history
from token_pipelines.source.contract import OPTIONAL, REQUIRED
from token_pipelines.token_facts import FACTS

SHOWN: Final = 5
"""How many tokens are shown, with as many different tiers and reasons as possible."""

SPANS: Final = (timedelta(days=1), timedelta(days=8), timedelta(days=32))
"""How far around now to look for expiries, one after the other until enough are found; then a run's whole window."""


def check_source(pipeline: Pipeline) -> SourceCheck:
    """Run the query on a small window, decide its tokens at the present ``now``, and read a few again by id.

    Raises:
        SourceContractError: if the query's columns are not what the contract asks for.
        SourceError: if the database cannot be read, or a row breaks the contract.
    """
    now = pipeline.clock()
    columns = pipeline.source.contract.present
    checked = SourceCheck(
        now=now,
        window=Window(expires_after=now, expires_before=now),
        present=[name for name in (*REQUIRED, *OPTIONAL) if name in columns],
        missing={fact.column: fact.without for fact in FACTS if fact.column in OPTIONAL and fact.column not in columns},
        unused=sorted(columns - {*REQUIRED, *OPTIONAL}),
    )
    checked.advice += misspelt_columns(checked.unused)
    kinds = _read(pipeline, checked)
    if checked.unreadable:
        checked.advice.append(explain_unreadable(checked.unreadable, checked.outcomes[Reason.UNREADABLE]))
    chosen = _choose(kinds)
    if len(chosen):
        _read_by_id(pipeline, chosen, checked)
    else:
        pipeline.source.probe_expiries()
        checked.advice.append(NOBODY)
    _try_on_sent(pipeline, checked)
    return checked


def _try_on_sent(pipeline: Pipeline, checked: SourceCheck) -> None:
    """Run source.on_sent for no token and roll it back, so that its faults are found before emails are sent."""
    if pipeline.on_sent is None:
        return
    try:
        pipeline.on_sent.try_out(checked.now)
    except (SourceError, ConfigError) as error:
        checked.faults.append(str(error))


def _read_by_id(pipeline: Pipeline, chosen: pd.DataFrame, checked: SourceCheck) -> None:
    """Read the chosen tokens as just before sending: are all of them found, and how long does it take?"""
    token_ids = set(chosen["token_id"])
    started = time.monotonic()
    facts = pipeline.source.resolve(token_ids)
    took = time.monotonic() - started
    checked.tokens = [checked_token(row, facts) for _, row in chosen.iterrows()]
    checked.faults += lost_by_id(chosen, facts)
    reaches = pipeline.source.filter_reaches_tables(token_ids)
    checked.advice += slow_by_id(len(token_ids), took, filter_reaches_tables=reaches)


def _read(pipeline: Pipeline, checked: SourceCheck) -> pd.DataFrame:
    """Read and decide, and fill in the counts; return a few decided rows of each kind (tier and reason)."""
    now = checked.now
    reach = pipeline.config.schedule.reach(pipeline.config.schedule.today(now), now)
    kinds = pd.DataFrame()
    for window in _windows(pipeline.policy.window(now=now, reach=reach), now):
        checked.window, checked.rows, checked.outcomes, checked.unreadable = window, 0, Counter(), []
        told, told_before = _told(pipeline, window, checked)
        frames = []
        for tokens in pipeline.source.snapshot(window):
            decided = pipeline.policy.decide(tokens, told, now=now, reach=reach, told_before=told_before)
            decided = decided.astype({"tier": "object", "reason": "object"})
            checked.rows += len(decided)
            checked.outcomes.update(decided["reason"].fillna("due").tolist())
            fine = decided["unreadable"] == ""
            checked.keep_unreadable(decided[~fine])
            decided = decided[fine]
            frames.append(decided.groupby(["tier", "reason"], dropna=False).head(SHOWN))
        kinds = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
        if checked.rows >= SHOWN:
            break
    return kinds


def _windows(whole: Window, now: datetime) -> Iterator[Window]:
    """Windows around ``now``, each wider than the last: in a large table the first, cheapest one has enough tokens."""
    for span in SPANS:
        yield Window(
            expires_after=max(whole.expires_after, now - span), expires_before=min(whole.expires_before, now + span)
        )
    yield whole


def _told(pipeline: Pipeline, window: Window, checked: SourceCheck) -> tuple[pd.DataFrame, datetime | None]:
    """What the ledger knows. A ledger that cannot be read is not a fault of the source, and becomes advice."""
    mode = pipeline.config.delivery.mode
    try:
        return pipeline.ledger.told.history(window, mode), pipeline.ledger.told.before(mode)
    except LedgerError as error:
        sentence = f"Decided as if nothing had been told yet. {error}"
        if sentence not in checked.advice:
            checked.advice.append(sentence)
        return no_history(), None


def _choose(kinds: pd.DataFrame) -> pd.DataFrame:
    """Up to SHOWN rows, in order of expiry: one of each kind, due ones first, then a second one of each, and so on."""
    if kinds.empty:
        return kinds
    again = kinds.groupby(["tier", "reason"], dropna=False).cumcount()
    order = kinds.assign(again=again, due=kinds["reason"].notna()).sort_values(["again", "due"], kind="stable")
    return order.head(SHOWN).sort_values(["expires_at", "token_id"])
