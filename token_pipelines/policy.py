"""Which tokens are due, at which tier, and if not, why. Pure: pandas over columns, no I/O and no clock.

Everything is decided by comparing instants, so that renaming, adding or moving a tier needs no migration.
docs/architecture.md walks one token through it; a scalar reference in the tests holds it in place.
"""

import zlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from token_pipelines.model import MICROSECOND, SHORTEST_NOTICE, Reason, Tier, to_micros

INSTANT: Final = "datetime64[us, UTC]"

TOKEN_COLUMNS: Final = {
    "token_id": "str",
    "recipient_id": "str",
    "created_at": INSTANT,
    "expires_at": INSTANT,
    "has_address": "bool",
    "email_verified": "bool",
    "revoked": "bool",
    "muted": "bool",
    "replaced_at": INSTANT,
    "last_notified_at": INSTANT,
}
"""Columns of a frame of tokens, one row per (token, recipient). The last two are NaT where there is none."""

KEY: Final = ["token_id", "recipient_id", "expires_at"]
"""What a promise is about: this recipient, this token, this expiry."""

HISTORY_COLUMNS: Final = {
    "token_id": "str",
    "recipient_id": "str",
    "expires_at": INSTANT,
    "told": INSTANT,
    "refused": INSTANT,
    "sent": "bool",
}
"""What the ledger knows of a key: the latest threshold told and the latest refused for good (NaT for none), and
whether something was sent for certain."""

NEVER: Final = np.iinfo(np.int64).min
"""Earlier than every instant; also how numpy writes NaT as an integer."""

_Ladder = list[tuple[Reason, np.ndarray]]
"""Reasons in the order in which they are named, each with the rows of which it holds."""

ROLLOUT_STEPS: Final = 10_000
"""A rollout is decided in hundredths of a percent."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """The span of expiries worth reading: ``expires_after <= expires_at < expires_before``."""

    expires_after: datetime
    expires_before: datetime


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The tiers, most urgent first, and to whom they are open."""

    tiers: tuple[Tier, ...]
    grace: timedelta
    rollout_percent: float = 100
    only_recipients: Collection[str] = ()

    def __post_init__(self) -> None:
        """Refuse tiers out of order: every decision below relies on it."""
        if any(later.place <= earlier.place for earlier, later in pairwise(self.tiers)):
            msg = "tiers must be given most urgent first, each with its own lead"
            raise ValueError(msg)

    def window(self, *, now: datetime, reach: datetime) -> Window:
        """The expiries that can have reached a tier by ``now``, or will by ``reach``."""
        befores = [tier.span for tier in self.tiers if not tier.says_expired]
        over = [tier.span for tier in self.tiers if tier.says_expired]
        return Window(
            expires_after=now - max(over) - self.grace if over else now,
            expires_before=reach + max(befores) if befores else now + MICROSECOND,
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
            tokens: columns TOKEN_COLUMNS, unique by (token_id, recipient_id).
            history: columns HISTORY_COLUMNS, unique by KEY: what the ledger says was told and refused. For a token
                that it has itself sent something for, ``last_notified_at`` no longer counts.
            now: the instant of deciding.
            reach: how far this run must look ahead.
            told_before: every threshold before this instant counts as told.

        Returns:
            ``tokens`` with three more columns. ``tier``: name of the tier reached, null where none is.
            ``threshold``: the instant at which that tier began, NaT where none. ``reason``: a `Reason`,
            null where the token is due.
        """
        index, threshold, too_short = self._reached(tokens, to_micros(now), to_micros(reach))
        told, refused = _told(tokens, history)
        if told_before is not None:
            told = np.maximum(told, to_micros(told_before) - 1)
        reasons = [
            (Reason.LIFETIME_TOO_SHORT, too_short),
            (Reason.OUTSIDE_TIERS, index < 0),
            *_of_the_token(tokens, now),
            (Reason.ALREADY_NOTIFIED, threshold <= told),
            (Reason.REFUSED_ADDRESS, threshold <= refused),
            *self._of_the_recipient(tokens),
        ]
        return tokens.assign(
            tier=pd.Categorical.from_codes(index, pd.Index([tier.name for tier in self.tiers])),
            threshold=_instants(threshold, tokens.index),
            reason=_first(reasons, tokens.index),
        )

    def blocking_reason(self, tokens: pd.DataFrame, *, now: datetime) -> pd.Series:
        """Per row the `Reason` that bars an email at every tier alike, whichever the token has reached; null for none.

        What `decide` names only where a tier is reached: a notice that waits may be of a tier that was moved since.
        """
        return _first([*_of_the_token(tokens, now), *self._of_the_recipient(tokens)], tokens.index)

    def _of_the_recipient(self, tokens: pd.DataFrame) -> _Ladder:
        return [
            (Reason.MUTED, tokens["muted"].to_numpy()),
            (Reason.NO_ADDRESS, ~tokens["has_address"].to_numpy()),
            (Reason.UNVERIFIED_ADDRESS, ~tokens["email_verified"].to_numpy()),
            (Reason.NOT_IN_ROLLOUT, ~self.in_rollout(tokens["recipient_id"])),
        ]

    def _reached(self, tokens: pd.DataFrame, now: int, reach: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Per row: the tier's position or -1, its threshold or NEVER, and whether the life is too short for any."""
        expires = _micros(tokens["expires_at"])
        lifetime = expires - _micros(tokens["created_at"])
        alive = expires > now
        index = np.full(len(tokens), -1, dtype=np.int64)
        threshold = np.full(len(tokens), NEVER, dtype=np.int64)
        reached = np.zeros(
            len(tokens), dtype=bool
        )  # a tier that has begun, whether or not the life is long enough for it
        lives_long = np.full(len(tokens), all(tier.says_expired for tier in self.tiers))

        fixed = [i for i, tier in enumerate(self.tiers) if tier.before is not None]
        if fixed:
            befores = np.array([self.tiers[i].lead // MICROSECOND for i in fixed], dtype=np.int64)
            # The most urgent tier that has begun by `reach` is the first whose lead is longer than what remains then.
            first = np.searchsorted(befores, expires - reach, side="right")
            begun = alive & (first < len(befores))
            first = np.minimum(first, len(befores) - 1)
            lead = befores[first]
            long_enough = lifetime > lead
            index = np.where(begun & long_enough, np.array(fixed)[first], index)
            threshold = np.where(begun & long_enough, expires - lead, threshold)
            reached |= begun
            lives_long |= lifetime > befores[0]
        for i, tier in enumerate(self.tiers):
            if tier.remaining is not None:
                lead = _lead_of_share(tier, lifetime)
                begins = expires - lead
                begun = alive & (begins < reach)
                long_enough = lead >= SHORTEST_NOTICE // MICROSECOND
                later = begun & long_enough & ((begins > threshold) | ((begins == threshold) & (i < index)))
                np.copyto(index, i, where=later)
                np.copyto(threshold, begins, where=later)
                reached |= begun
                lives_long |= long_enough
        for i, tier in reversed(list(enumerate(self.tiers))):  # the latest threshold has the last word
            if tier.after is not None:
                begins = expires + tier.after // MICROSECOND
                open_ = ~alive & (begins <= now) & (now <= expires + (tier.span + self.grace) // MICROSECOND)
                index = np.where(open_ & lives_long, i, index)
                threshold = np.where(open_ & lives_long, begins, threshold)
                reached |= open_
        return index, threshold, reached & (index < 0)

    def in_rollout(self, recipients: pd.Series) -> np.ndarray:
        """Per recipient id: whether the rollout is open to them."""
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
    """Per row that has a tier: a number, int64, that is smaller the more urgent it is. Keeps the index.

    It is the lead, expiry minus threshold, which a share of a lifetime makes each token's own. Equal leads go by the
    ladder: a tier's position in it is the number's remainder by the count of tiers.
    """
    tiers = decided["tier"].cat
    lead = _micros(decided["expires_at"]) - _micros(decided["threshold"])
    return pd.Series(lead * len(tiers.categories) + tiers.codes.to_numpy(), index=decided.index)


def no_history() -> pd.DataFrame:
    """The history of a ledger that knows nothing: no rows, columns HISTORY_COLUMNS."""
    return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in HISTORY_COLUMNS.items()})


def _of_the_token(tokens: pd.DataFrame, now: datetime) -> _Ladder:
    replaced = _micros(tokens["replaced_at"])
    return [
        (Reason.REVOKED, tokens["revoked"].to_numpy()),
        (Reason.REPLACED, (replaced != NEVER) & (replaced <= to_micros(now))),
    ]


def _first(ladder: _Ladder, index: pd.Index) -> pd.Series:
    """Per row the first reason that holds; null for none."""
    codes = np.select([where for _, where in ladder], np.arange(len(ladder)), default=-1)
    return pd.Series(pd.Categorical.from_codes(codes, pd.Index([str(reason) for reason, _ in ladder])), index=index)


def _told(tokens: pd.DataFrame, history: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Per row: the latest threshold told, and the latest refused, in microseconds; NEVER for none."""
    elsewhere = _micros(tokens["last_notified_at"])
    if history.empty:
        return elsewhere, np.full(len(tokens), NEVER, dtype=np.int64)
    # Without pandas' check that the history's keys are unique, which takes five times as long as the join, and without
    # its isin, which makes a list of half a million ids.
    found = tokens[KEY].merge(history, on=KEY, how="left")
    text = pa.large_string()
    ours = pa.array(history.loc[history["sent"], "token_id"], text)
    sent_by_us = pc.is_in(pa.array(tokens["token_id"], text), value_set=ours).to_numpy(zero_copy_only=False)
    told = np.maximum(_micros(found["told"]), np.where(sent_by_us, NEVER, elsewhere))
    return told, _micros(found["refused"])


def _lead_of_share(tier: Tier, lifetime: np.ndarray) -> np.ndarray:
    """The tier's share of each lifetime, in whole microseconds, rounded down; no more than it may be."""
    assert tier.remaining is not None  # noqa: S101 -- narrows the type
    assert tier.at_most is not None  # noqa: S101 -- narrows the type
    over, under = tier.remaining.as_integer_ratio()
    wholes = lifetime // under  # in two parts: a lifetime times a numerator may not fit into 64 bits
    lead: np.ndarray = wholes * over + (lifetime - wholes * under) * over // under
    np.minimum(lead, tier.at_most // MICROSECOND, out=lead)
    return lead


def _micros(instants: pd.Series) -> np.ndarray:
    return instants.astype(INSTANT).to_numpy(dtype="datetime64[us]").view(np.int64)


def _instants(micros: np.ndarray, index: pd.Index) -> pd.Series:
    return pd.Series(micros.view("datetime64[us]"), index=index).dt.tz_localize("UTC")
