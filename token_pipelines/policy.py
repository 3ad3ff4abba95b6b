"""Which tokens are due, at which tier, and if not, why. Pure: pandas over columns, no I/O and no clock.

The policy decides by comparing instants, so renaming, adding or moving a tier needs no migration. `tiers` has the kinds
of tier, `token_facts` the meaning of each column. docs/architecture.md follows one token through the policy. The tests
compare it with a scalar reference.
"""

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from token_pipelines.model import MICROSECOND, Reason, to_micros
from token_pipelines.tiers import Tier, TokenRows
from token_pipelines.token_facts import FACTS, INSTANT, NEVER, micros

KEY: Final = ["token_id", "recipient_id", "expires_at"]
"""Identifies what a recipient is owed notices about: a token, a recipient and an expiry."""

HISTORY_COLUMNS: Final = {
    "token_id": "str",
    "recipient_id": "str",
    "expires_at": INSTANT,
    "told": INSTANT,
    "refused": INSTANT,
    "sent": "bool",
}
"""What the ledger knows about a key: the latest threshold that counts as told, the latest that was refused for good
(NaT for none), and whether a notice was certainly sent."""

ROLLOUT_STEPS: Final = 10_000
"""A rollout divides recipients into this many groups, so that it can include hundredths of a percent."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """A span of expiries: ``expires_after <= expires_at < expires_before``."""

    expires_after: datetime
    expires_before: datetime


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The tiers, most urgent first, and which recipients may get notices."""

    tiers: tuple[Tier, ...]
    grace: timedelta
    rollout_percent: float = 100
    only_recipients: Collection[str] = ()

    def __post_init__(self) -> None:
        """Refuse tiers that are out of order: every decision below relies on the order."""
        if any(later.sort_key <= earlier.sort_key for earlier, later in pairwise(self.tiers)):
            msg = "tiers must be given most urgent first, each with its own lead"
            raise ValueError(msg)

    def window(self, *, now: datetime, reach: datetime) -> Window:
        """The span of expiries of all tokens that have reached a tier, or will reach one by ``reach``."""
        ahead = [tier.span for tier in self.tiers if not tier.says_expired]
        back = [tier.span for tier in self.tiers if tier.says_expired]
        return Window(
            expires_after=now - max(back) - self.grace if back else now,
            expires_before=reach + max(ahead) if ahead else now + MICROSECOND,
        )

    def decide(
        self,
        tokens: pd.DataFrame,
        history: pd.DataFrame,
        *,
        now: datetime,
        reach: datetime,
        told_before: datetime | None = None,
    ) -> pd.DataFrame:
        """Give every token a tier, or a reason why it leads to no email.

        Args:
            tokens: columns `token_facts.TOKEN_COLUMNS`, unique by (token_id, recipient_id).
            history: columns HISTORY_COLUMNS, unique by KEY: what was told and what was refused, by the ledger. Once
                the ledger has sent a notice about a token, that token's ``last_notified_at`` no longer counts.
            now: the instant of deciding.
            reach: how far this run must look ahead.
            told_before: every threshold before this instant counts as told.

        Returns:
            ``tokens`` with three more columns. ``tier``: the name of the tier that the token has reached, null for
            none. ``threshold``: the instant at which that tier began, NaT for none. ``reason``: a `Reason`, null if
            the token is due.
        """
        rows = TokenRows(tokens=tokens, now=to_micros(now), reach=to_micros(reach), grace=self.grace // MICROSECOND)
        index, threshold, too_short = self._reached(rows)
        told, refused = _told(tokens, history)
        if told_before is not None:
            told = np.maximum(told, to_micros(told_before) - 1)
        holds = {
            Reason.LIFETIME_TOO_SHORT: too_short,
            Reason.OUTSIDE_TIERS: index < 0,
            Reason.ALREADY_NOTIFIED: threshold <= told,
            Reason.REFUSED_ADDRESS: threshold <= refused,
            **self._blocked(tokens, now),
        }
        return tokens.assign(
            tier=pd.Categorical.from_codes(index, pd.Index([tier.name for tier in self.tiers])),
            threshold=_instants(threshold, tokens.index),
            reason=_first(holds, tokens.index),
        )

    def blocking_reason(self, tokens: pd.DataFrame, *, now: datetime) -> pd.Series:
        """Per row the `Reason` that forbids an email in every tier; null for none.

        Sending needs this beside `decide`, which names such a reason only if the token has reached a tier: since a
        notice was planned, its tier may have been moved.
        """
        return _first(self._blocked(tokens, now), tokens.index)

    def _blocked(self, tokens: pd.DataFrame, now: datetime) -> dict[Reason, np.ndarray]:
        """For each reason that does not depend on the tier, the rows for which it holds."""
        blocked = {Reason.NOT_IN_ROLLOUT: ~self._in_rollout(tokens["recipient_id"])}
        for fact in FACTS:
            if fact.reason is not None and fact.holds is not None:
                holds = fact.holds(tokens[fact.column], now)
                earlier = blocked.get(fact.reason)  # several facts may have one reason
                blocked[fact.reason] = holds if earlier is None else earlier | holds
        return blocked

    def _reached(self, rows: TokenRows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per row: the tier reached as a position or -1, its threshold or NEVER, and whether the lifetime is too short.

        A row reaches the tier that began last among those that are open and fit. If several began at the same instant,
        it reaches the most urgent one.
        """
        index = np.full(len(rows.tokens), -1, dtype=np.int16)
        threshold = np.full(len(rows.tokens), NEVER, dtype=np.int64)
        opened = np.zeros(len(rows.tokens), dtype=bool)
        fitted = np.full(len(rows.tokens), all(tier.says_expired for tier in self.tiers))
        # Least urgent first: a tier after the expiry needs to know which tokens lived long enough for another tier.
        for position, tier in reversed(list(enumerate(self.tiers))):
            lead = tier.lead(rows)
            begins = tier.begins(rows, lead)
            is_open = tier.is_open(rows, begins)
            fits = tier.fits(rows, lead, fitted)
            opened |= is_open
            fitted |= fits
            latest = is_open & fits & (begins >= threshold)
            index = np.where(latest, np.int16(position), index)
            threshold = np.where(latest, begins, threshold)
        return index, threshold, opened & (index < 0)

    def _in_rollout(self, recipients: pd.Series) -> np.ndarray:
        """Per recipient id: whether the rollout includes them."""
        inside = np.ones(len(recipients), dtype=bool)
        if self.only_recipients:
            inside &= recipients.isin(list(self.only_recipients)).to_numpy()
        if self.rollout_percent < 100:  # noqa: PLR2004 -- percent
            limit = self.rollout_percent * ROLLOUT_STEPS / 100
            inside &= np.fromiter(
                (zlib.crc32(recipient.encode()) % ROLLOUT_STEPS < limit for recipient in recipients),
                bool,
                len(recipients),
            )
        return inside


def urgency(decided: pd.DataFrame) -> pd.Series:
    """Sort key, int64, for rows that have a tier: the smaller, the more urgent. Keeps the index.

    The key is the lead (expiry minus threshold) times the number of tiers, plus the tier's position. So at equal leads
    the tier that is listed first sorts first.
    """
    tiers = decided["tier"].cat
    lead = micros(decided["expires_at"]) - micros(decided["threshold"])
    return pd.Series(lead * len(tiers.categories) + tiers.codes.to_numpy(), index=decided.index)


def no_history() -> pd.DataFrame:
    """The history in an empty ledger: no rows, columns HISTORY_COLUMNS."""
    return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in HISTORY_COLUMNS.items()})


def _first(holds: Mapping[Reason, np.ndarray], index: pd.Index) -> pd.Series:
    """Per row the first reason that holds, in the order of `Reason`; null for none."""
    reasons = [reason for reason in Reason if reason in holds]
    codes = np.full(len(index), -1, dtype=np.int8)
    for code, reason in reversed(list(enumerate(reasons))):
        codes = np.where(holds[reason], np.int8(code), codes)
    names = pd.Index([str(reason) for reason in reasons])
    return pd.Series(pd.Categorical.from_codes(codes, names), index=index)


def _told(tokens: pd.DataFrame, history: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Per row: the latest threshold told, and the latest refused, in microseconds; NEVER for none."""
    elsewhere = micros(tokens["last_notified_at"])
    if history.empty:
        return elsewhere, np.full(len(tokens), NEVER, dtype=np.int64)
    # validate="many_to_one" would take five times as long as the join; Series.isin would make a list of all ids.
    found = tokens[KEY].merge(history, on=KEY, how="left")
    text = pa.large_string()
    ours = pa.array(history.loc[history["sent"], "token_id"], text)
    sent_by_us = pc.is_in(pa.array(tokens["token_id"], text), value_set=ours).to_numpy(zero_copy_only=False)
    told = np.maximum(micros(found["told"]), np.where(sent_by_us, NEVER, elsewhere))
    return told, micros(found["refused"])


def _instants(since_1970: np.ndarray, index: pd.Index) -> pd.Series:
    """Microseconds as instants; NaT for NEVER."""
    return pd.Series(since_1970.view("datetime64[us]"), index=index).dt.tz_localize("UTC")
