"""What the pipeline understands of the operator's query: its columns, and a few tokens with their tier and why.

Reads a small window of expiries, and a few of its tokens again by id; tries the statement that is run after sending.
Changes nothing. Of an address it shows the first letter and the top-level domain at most.
"""

import difflib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import pandas as pd

from token_pipelines.addresses import valid_address
from token_pipelines.errors import ConfigError, LedgerError, SourceError
from token_pipelines.mail.names import clean
from token_pipelines.model import Reason
from token_pipelines.operations.source_check.masks import SHOWN_LIMIT, mask_address, mask_name, without_address
from token_pipelines.pipeline import Pipeline
from token_pipelines.policy import Window, no_history
from token_pipelines.source.contract import OPTIONAL, REQUIRED
from token_pipelines.token_facts import FACTS

SHOWN: Final = 5
"""How many tokens are shown, of as many different tiers and reasons as were read."""

SPANS: Final = (timedelta(days=1), timedelta(days=8), timedelta(days=32))
"""How far around now to look for expiries, until there are enough; after these, the whole window of a run."""

SLOW_S: Final = 2.0
"""Seconds. Where an index is used, reading a few tokens by id takes milliseconds."""

UNREACHED: Final = (
    "The database would read everything to find a few tokens by id, as is done for each batch of notices: grouping, "
    "DISTINCT, window functions and UNION may keep the filter on token_id from the tables."
)
MARKER: Final = (
    "Mark its place in the query, after a condition of the WHERE, with a comment like /* token_ids: tokens.id */"
)

NOBODY: Final = (
    "The source query returned no row at all in the widest window of a run, so that nobody would be told; if tokens "
    "expire in it, look at what the query's WHERE and its joins leave out."
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One row as the pipeline understands it. Instants in UTC; no address, and nobody's whole name."""

    token_id: str
    recipient_id: str
    token_name: str
    recipient_name: str
    address: str
    created_at: datetime
    expires_at: datetime
    tier: str | None
    threshold: datetime | None
    reason: str | None

    @property
    def why(self) -> str:
        """Why it leads to an email now, or why not, in words."""
        return "it is due" if self.reason is None else Reason(self.reason).meaning


@dataclass(kw_only=True)
class SourceCheck:
    """What was found. Nothing can be sent before ``faults`` are fixed; ``advice`` is optional."""

    now: datetime
    window: Window
    present: list[str]
    missing: dict[str, str]
    unused: list[str]
    rows: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)


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
    checked.advice += [_typing_mistake(name) for name in checked.unused if _near(name)]
    kinds = _read(pipeline, checked)
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
    if pipeline.write_back is None:
        return
    try:
        pipeline.write_back.try_out(checked.now)
    except (SourceError, ConfigError) as error:
        checked.faults.append(str(error))


def _read_by_id(pipeline: Pipeline, chosen: pd.DataFrame, checked: SourceCheck) -> None:
    """Read the chosen tokens as just before sending: are all of them found, and how long does it take?"""
    token_ids = set(chosen["token_id"])
    started = time.monotonic()
    facts = pipeline.source.resolve(token_ids)
    took = time.monotonic() - started
    checked.samples = [_sample(row, facts) for _, row in chosen.iterrows()]
    checked.faults += _lost_by_id(chosen, facts)
    if pipeline.source.filter_reaches_tables(token_ids) is False:
        checked.advice.append(f"{UNREACHED} {MARKER}.")
    elif took > SLOW_S:
        msg = f"Reading {len(token_ids)} tokens by id took {took:.1f} s, and so does each batch of notices;"
        checked.advice.append(f"{msg} index the column behind token_id, or {MARKER[0].lower()}{MARKER[1:]}.")


def _read(pipeline: Pipeline, checked: SourceCheck) -> pd.DataFrame:
    """Read and decide, and fill in the counts; return a few decided rows of each kind (tier and reason)."""
    now = checked.now
    reach = pipeline.config.schedule.reach(pipeline.config.schedule.today(now), now)
    kinds = pd.DataFrame()
    for window in _windows(pipeline.policy.window(now=now, reach=reach), now):
        checked.window, checked.rows, checked.outcomes = window, 0, Counter()
        told, told_before = _told(pipeline, window, checked)
        frames = []
        for tokens in pipeline.source.snapshot(window):
            decided = pipeline.policy.decide(tokens, told, now=now, reach=reach, told_before=told_before)
            decided = decided.astype({"tier": "object", "reason": "object"})
            checked.rows += len(decided)
            checked.outcomes.update(decided["reason"].fillna("due").tolist())
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
        return pipeline.ledger.told(window, mode), pipeline.ledger.told_before(mode)
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


def _sample(row: pd.Series, facts: pd.DataFrame) -> Sample:
    same = (facts["token_id"] == row["token_id"]) & (facts["recipient_id"] == row["recipient_id"])
    token_name, recipient_name, email = _names(facts[same])
    reason = None if pd.isna(row["reason"]) else str(row["reason"])
    if reason is None and same.any() and not valid_address(email):
        reason = str(Reason.BAD_ADDRESS)
    return Sample(
        token_id=without_address(row["token_id"]),
        recipient_id=without_address(row["recipient_id"]),
        token_name=without_address(clean(token_name, SHOWN_LIMIT)),
        recipient_name=mask_name(recipient_name),
        address=mask_address(email),
        created_at=row["created_at"].to_pydatetime(),
        expires_at=row["expires_at"].to_pydatetime(),
        tier=None if pd.isna(row["tier"]) else str(row["tier"]),
        threshold=None if pd.isna(row["threshold"]) else row["threshold"].to_pydatetime(),
        reason=reason,
    )


def _names(facts: pd.DataFrame) -> tuple[str, str, str]:
    """The token's name, the recipient's and the address; empty where there is none."""
    rows = facts[["token_name", "recipient_name", "email"]].itertuples(index=False)
    token_name, recipient_name, email = (str(text or "") for text in next(rows, ("", "", "")))
    return token_name, recipient_name, email.strip()


def _lost_by_id(chosen: pd.DataFrame, facts: pd.DataFrame) -> list[str]:
    """Report a query that returns a token for a window but not by id: its notices would be dropped as gone."""
    key = ["token_id", "recipient_id", "expires_at"]
    both = chosen[key].merge(facts[key], on=key, how="left", indicator=True)
    lost = both.loc[both["_merge"] == "left_only", "token_id"].tolist()
    if not lost:
        return []
    msg = (
        f"Asked again by id, as just before sending, the source query does not return the same for token_id "
        f"{without_address(lost[0])}, so that its notice would be dropped; make each row independent of the others "
        "(no row numbers, no grouping over tokens, no random choice)."
    )
    return [msg]


def _near(name: str) -> list[str]:
    return difflib.get_close_matches(name.lower(), OPTIONAL, n=1)


def _typing_mistake(name: str) -> str:
    return f"The column {name} is not used; did you mean {_near(name)[0]}?"
