"""Use case 1: read what expires, decide what is due, plan the notices into the ledger.

Sends nothing. Planning again is harmless: what was told stays told, what waits is kept or replaced.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Final

import numpy as np
import pandas as pd

from token_pipelines.errors import FuseTripped
from token_pipelines.ledger.planning import PLANNED_COLUMNS, Planning, among
from token_pipelines.model import RECIPIENT_REASONS, Mode, Reason
from token_pipelines.pipeline import Pipeline
from token_pipelines.policy import KEY, no_history, urgency
from token_pipelines.token_facts import TOKEN_COLUMNS

NOTICE_COLUMNS: Final = ["notice_id", "recipient_id", "reason"]
"""A tier's share of the day: one row per notice; ``reason`` where the recipient cannot be told, else null."""


@dataclass
class SnapshotCounts:
    """What a day's snapshot showed. Full once the frames have been read to the end."""

    examined: int = 0
    due: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    due_by_tier: Counter[str] = field(default_factory=Counter)
    _recipients: list[np.ndarray] = field(default_factory=list)

    @property
    def recipients_due(self) -> int:
        """How many people have something due: as many notices as the day has, at most."""
        hashes = np.sort(np.concatenate(self._recipients)) if self._recipients else np.empty(0)
        return int(np.count_nonzero(np.diff(hashes))) + bool(len(hashes))

    def add(self, decided: pd.DataFrame) -> None:
        """Count a frame that the policy has decided."""
        due = decided.loc[decided["reason"].isna(), ["recipient_id", "tier"]]
        self.examined += len(decided)
        self.due += len(due)
        counts = decided["reason"].value_counts().items()
        self.reasons.update({str(reason): int(count) for reason, count in counts if count})
        self.due_by_tier.update({str(tier): int(count) for tier, count in due["tier"].value_counts().items()})
        # Python's own hash: ten times faster than pandas'. Eight bytes a token, whatever the ids are.
        hashes = map(hash, due["recipient_id"].to_numpy(dtype=object))
        self._recipients.append(np.fromiter(hashes, np.int64, len(due)))


def examine(pipeline: Pipeline, *, day: date, counts: SnapshotCounts) -> Iterator[pd.DataFrame]:
    """Read the tokens that expire in the tiers' span and decide each, in frames that fit in memory.

    Yields:
        Columns token_facts.TOKEN_COLUMNS, ``tier``, ``threshold`` and ``reason``; never an address.
    """
    now = pipeline.clock()
    reach = pipeline.config.schedule.reach(day, now)
    window = pipeline.policy.window(now=now, reach=reach)
    mode = pipeline.config.delivery.mode
    told, told_before = pipeline.ledger.told(window, mode), pipeline.ledger.told_before(mode)
    for tokens in pipeline.source.snapshot(window):
        # Of these tokens only: the policy joins what it is given, and a full ledger would be joined to every frame.
        known = told[among(told["token_id"], tokens["token_id"])]
        decided = pipeline.policy.decide(tokens, known, now=now, reach=reach, told_before=told_before)
        counts.add(decided)
        yield decided


def no_tokens(pipeline: Pipeline) -> pd.DataFrame:
    """A decided frame without rows: the columns and dtypes of what `examine` yields."""
    none = pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in TOKEN_COLUMNS.items()})
    now = pipeline.clock()
    return pipeline.policy.decide(none, no_history(), now=now, reach=now)


def plan(
    pipeline: Pipeline, snapshot: pd.DataFrame, *, day: date, tiers: Collection[str], run_id: str, approve: bool = False
) -> dict[str, pd.DataFrame]:
    """Decide a snapshot's tokens with the present ``now`` and plan the notices of these tiers, in one transaction.

    Returns:
        For each tier asked for, a frame of NOTICE_COLUMNS. Under a dry run nothing is written, and ids are null.

    Raises:
        FuseTripped: if more notices are new than delivery.max_notices, or an earlier trip was not approved.
    """
    delivery = pipeline.config.delivery
    now = pipeline.clock()
    reach = pipeline.config.schedule.reach(day, now)
    since = pipeline.leftovers_since(now)
    with pipeline.ledger.planning(run_id=run_id, mode=delivery.mode) as ledger:
        if approve:
            ledger.approve_trips(now)
        _hold_while_tripped(pipeline, ledger.open_trip())
        decided = _decide(pipeline, ledger, snapshot, now=now, reach=reach)
        if _free_changed_addresses(pipeline, ledger, decided):
            decided = _decide(pipeline, ledger, snapshot, now=now, reach=reach)
        due = decided.loc[decided["reason"].isna(), [*KEY, "threshold", "tier"]]
        draft = ledger.draft(due, tiers=tiers, since=since)
        fits = approve or draft.size <= delivery.max_notices
        if delivery.mode is Mode.DRY_RUN:
            lines = draft.new.drop_duplicates("notice_id").assign(notice_id=None, tier=draft.new["notice_tier"])
            planned = lines[PLANNED_COLUMNS]
        elif fits:
            ledger.close_tiers_other_than([tier.name for tier in pipeline.policy.tiers], since)
            domain = pipeline.serialiser.domain
            planned = ledger.carry_out(draft, day=day, at=now, message_domain=domain)
    if not fits and delivery.mode is not Mode.DRY_RUN:
        trip_fuse(pipeline, day=day, run_id=run_id, new=draft.size)
        _hold_while_tripped(pipeline, (day, draft.size, delivery.max_notices))
    return _by_tier(planned, _unreachable(decided, planned), tiers)


def _decide(
    pipeline: Pipeline, ledger: Planning, snapshot: pd.DataFrame, *, now: datetime, reach: datetime
) -> pd.DataFrame:
    told = ledger.told(pipeline.policy.window(now=now, reach=reach))
    tokens = snapshot[list(TOKEN_COLUMNS)]
    return pipeline.policy.decide(tokens, told, now=now, reach=reach, told_before=ledger.told_before())


def _free_changed_addresses(pipeline: Pipeline, ledger: Planning, decided: pd.DataFrame) -> bool:
    """Free what was refused for good, where the recipient has another address by now. Whether anything was freed."""
    refused = decided.loc[decided["reason"] == Reason.REFUSED_ADDRESS, "token_id"]
    if refused.empty or pipeline.config.delivery.mode is not Mode.LIVE:
        return False
    lines = ledger.refused(refused.tolist()).merge(
        pipeline.source.resolve(refused.tolist()), on=["token_id", "recipient_id"]
    )
    hashes = lines["email"].map(lambda email: pipeline.ledger.hash_address(email or ""))
    changed = lines.loc[hashes != lines["address_hash"], "notice_id"].unique().tolist()
    ledger.release(changed)
    return bool(changed)


def trip_fuse(pipeline: Pipeline, *, day: date, run_id: str, new: int) -> None:
    """Keep it in the ledger that a day was too large, so that later days wait too, until a person approves."""
    mode, limit = pipeline.config.delivery.mode, pipeline.config.delivery.max_notices
    if mode is not Mode.DRY_RUN:
        pipeline.ledger.record_fuse_trip(day=day, mode=mode, run_id=run_id, new=new, limit=limit, at=pipeline.clock())


def _hold_while_tripped(pipeline: Pipeline, trip: tuple[date, int, int] | None) -> None:
    if trip is not None:
        day, new, limit = trip
        msg = (
            f"The volume fuse has tripped: {new} notices were new on {day}, over delivery.max_notices of {limit}; "
            "nothing was planned and nothing is sent. Look at the day in the UI, then approve it (token-pipelines "
            f"run{pipeline.config.option} --approve-volume) or mend the source."
        )
        raise FuseTripped(msg)


def _unreachable(decided: pd.DataFrame, planned: pd.DataFrame) -> pd.DataFrame:
    """Recipients that have something due and cannot be told: one row each, at their most urgent tier."""
    blocked = decided[decided["reason"].isin(RECIPIENT_REASONS)]
    blocked = blocked[~among(blocked["recipient_id"], planned["recipient_id"])]
    first = blocked.assign(urgency=urgency(blocked)).sort_values("urgency", kind="stable")
    rows = first.drop_duplicates("recipient_id")[["recipient_id", "tier", "reason"]].astype("object")
    return rows.assign(notice_id=None)


def _by_tier(planned: pd.DataFrame, unreachable: pd.DataFrame, tiers: Collection[str]) -> dict[str, pd.DataFrame]:
    both = pd.concat([planned.assign(reason=None).astype("object"), unreachable], ignore_index=True)
    return {tier: both.loc[both["tier"] == tier, NOTICE_COLUMNS].astype("str").reset_index(drop=True) for tier in tiers}
