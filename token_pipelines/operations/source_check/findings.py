"""What a check of the source query found, with its messages: facts about tokens, faults, advice. Reads nothing.

At most the first letter and the top-level domain of an address are shown.
"""

import difflib
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import pandas as pd

from token_pipelines.addresses import valid_address
from token_pipelines.mail.names import clean
from token_pipelines.model import UNREADABLE_SHOWN, Reason, UnreadableRow
from token_pipelines.operations.source_check.masks import SHOWN_LIMIT, mask_address, mask_name, without_address
from token_pipelines.policy import Window
from token_pipelines.source.contract import OPTIONAL

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
class CheckedToken:
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
        """Why the token leads to an email now, or why not, in words."""
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
    tokens: list[CheckedToken] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    unreadable: list[UnreadableRow] = field(default_factory=list)

    def keep_unreadable(self, rows: pd.DataFrame) -> None:
        """Keep the first of the rows that cannot be read; ``outcomes`` counts them all."""
        first = rows[["token_id", "unreadable"]].head(UNREADABLE_SHOWN - len(self.unreadable))
        self.unreadable += [UnreadableRow(*row) for row in first.itertuples(index=False, name=None)]


def checked_token(row: pd.Series, facts: pd.DataFrame) -> CheckedToken:
    """A decided row of the snapshot, with what reading it again by id returned."""
    same = (facts["token_id"] == row["token_id"]) & (facts["recipient_id"] == row["recipient_id"])
    token_name, recipient_name, email = _names(facts[same])
    reason = None if pd.isna(row["reason"]) else str(row["reason"])
    if reason is None and same.any() and not valid_address(email):
        reason = str(Reason.BAD_ADDRESS)
    return CheckedToken(
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
    """The token's name, the recipient's name and the address; empty if there is none."""
    rows = facts[["token_name", "recipient_name", "email"]].itertuples(index=False)
    token_name, recipient_name, email = (str(text or "") for text in next(rows, ("", "", "")))
    return token_name, recipient_name, email.strip()


def lost_by_id(chosen: pd.DataFrame, facts: pd.DataFrame) -> list[str]:
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


def misspelt_columns(unused: list[str]) -> list[str]:
    """Advice for each column that is not used and whose name is close to one that would be."""
    return [f"The column {name} is not used; did you mean {near[0]}?" for name in unused if (near := _near(name))]


def slow_by_id(count: int, took: float, *, filter_reaches_tables: bool | None) -> list[str]:
    """Advice if reading ``count`` tokens by id reads whole tables, or if it ``took`` too many seconds."""
    if filter_reaches_tables is False:
        return [f"{UNREACHED} {MARKER}."]
    if took > SLOW_S:
        msg = f"Reading {count} tokens by id took {took:.1f} s, and so does each batch of notices;"
        return [f"{msg} index the column behind token_id, or {MARKER[0].lower()}{MARKER[1:]}."]
    return []
