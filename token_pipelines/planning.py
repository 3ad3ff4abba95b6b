"""Read the tokens that expire, decide which are due, and plan their notices into the ledger.

Sends nothing. Planning is idempotent: it never repeats a notice, and it keeps or replaces those that wait.
"""

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import pandas as pd

from token_pipelines.errors import FuseTripped
from token_pipelines.growth import explain_growth, find_growth_trip, open_growth_trip
from token_pipelines.ledger.fuse import Trip
from token_pipelines.ledger.growth import GrowthTrip
from token_pipelines.ledger.planning import PLANNED_COLUMNS, Plan, Planning, among
from token_pipelines.ledger.told import RefusedLine, Told
from token_pipelines.model import RECIPIENT_REASONS, UNREADABLE_SHOWN, Mode, Reason, UnreadableRow
from token_pipelines.pipeline import Pipeline
from token_pipelines.policy import KEY, no_history, urgency
from token_pipelines.token_facts import TOKEN_COLUMNS

log = logging.getLogger(__name__)

MAX_NOTICES: Final = "delivery.max_notices"

REPORTS_MAY_TAKE: Final = timedelta(days=14)
"""How long after an email a delivery report may come back; mail systems give up after about five days."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """One tier's share of a day, counted in notices."""

    tier: str
    planned: int
    """Notices that wait to be sent. In a dry run: notices that a real run would plan."""
    unreachable: Mapping[str, int]
    """How many recipients have a due token but cannot get a notice, by reason."""


@dataclass
class SnapshotCounts:
    """What a day's snapshot showed. Complete once the frames have been read to the end."""

    examined: int = 0
    due: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    due_by_tier: Counter[str] = field(default_factory=Counter)
    unreadable: list[UnreadableRow] = field(default_factory=list)
    """The first of the rows that cannot be read; ``reasons`` counts them all."""
    _recipients: list[np.ndarray] = field(default_factory=list)

    @property
    def recipients_due(self) -> int:
        """How many people have a due token. The day has at most this many notices."""
        hashes = np.sort(np.concatenate(self._recipients)) if self._recipients else np.empty(0)
        return int(np.count_nonzero(np.diff(hashes))) + bool(len(hashes))

    def add(self, decided: pd.DataFrame) -> None:
        """Count a frame that the policy has decided."""
        due = decided.loc[decided["reason"].isna(), ["recipient_id", "tier"]]
        self.examined += len(decided)
        self.due += len(due)
        counts = decided["reason"].value_counts().items()
        self.reasons.update({str(reason): int(count) for reason, count in counts if count})
        odd = decided.loc[decided["unreadable"] != "", ["token_id", "unreadable"]].head(
            UNREADABLE_SHOWN - len(self.unreadable)
        )
        self.unreadable += [UnreadableRow(*row) for row in odd.itertuples(index=False, name=None)]
        self.due_by_tier.update({str(tier): int(count) for tier, count in due["tier"].value_counts().items()})
        # Python's own hash is ten times faster than pandas'. A hash takes eight bytes, however long the id is.
        hashes = map(hash, due["recipient_id"].to_numpy(dtype=object))
        self._recipients.append(np.fromiter(hashes, np.int64, len(due)))


def examine(pipeline: Pipeline, *, day: date, counts: SnapshotCounts) -> Iterator[pd.DataFrame]:
    """Read the tokens that may have reached a tier, and decide each one, in frames that fit in memory.

    Yields:
        Columns token_facts.TOKEN_COLUMNS, ``tier``, ``threshold`` and ``reason``; never an address.
    """
    now = pipeline.clock()
    reach = pipeline.config.schedule.reach(day, now)
    window = pipeline.policy.window(now=now, reach=reach)
    mode = pipeline.config.delivery.mode
    told, told_before = pipeline.ledger.told.history(window, mode), pipeline.ledger.told.before(mode)
    for tokens in pipeline.source.snapshot(window):
        # Only the history of these tokens: otherwise the policy would join the whole ledger to every frame.
        known = told[among(told["token_id"], tokens["token_id"])]
        decided = pipeline.policy.decide(tokens, known, now=now, reach=reach, told_before=told_before)
        counts.add(decided)
        yield decided


def no_tokens(pipeline: Pipeline) -> pd.DataFrame:
    """A decided frame without rows, with the columns and dtypes of those that `examine` yields."""
    none = pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in TOKEN_COLUMNS.items()})
    now = pipeline.clock()
    return pipeline.policy.decide(none, no_history(), now=now, reach=now)


def plan(
    pipeline: Pipeline,
    snapshot: pd.DataFrame,
    *,
    day: date,
    tiers: Collection[str],
    run_id: str,
    approved_by: str | None = None,
) -> dict[str, Share]:
    """Decide a snapshot's tokens again, as of now, and plan the notices of these tiers, in one transaction.

    Args:
        pipeline: the pipeline.
        snapshot: what `examine` yielded, as one frame.
        day: the day that the ledger records for the new notices.
        tiers: the names of the tiers to plan.
        run_id: the run that plans.
        approved_by: who has approved the day's volume; None if nobody has.

    Returns:
        The share of each of ``tiers``. A dry run writes nothing.

    Raises:
        FuseTripped: if more notices are new than delivery.max_notices or delivery.max_growth allow, or if nobody has
            approved an earlier trip.
    """
    mode, limit = pipeline.config.delivery.mode, pipeline.config.delivery.max_notices
    writes = mode is not Mode.DRY_RUN
    # Before the transaction: the source may take minutes to answer, and every sender waits for the transaction.
    changed = _refused_at_a_changed_address(pipeline, snapshot)
    now = pipeline.clock()
    reach = pipeline.config.schedule.reach(day, now)
    since = pipeline.leftovers_since(now)
    configured = [tier.name for tier in pipeline.policy.tiers]
    domain = pipeline.serialiser.domain
    with pipeline.ledger.planning(run_id=run_id, mode=mode) as ledger:
        if writes:
            _approve(ledger, mode, now, by=approved_by, limit=limit)
        trip = None if approved_by else ledger.fuse.open_trip(mode, max_notices=limit)
        grown = None if approved_by else open_growth_trip(pipeline, ledger.growth)
        if trip is None and grown is None:
            if writes:
                ledger.release(changed)
            decided = _decide(pipeline, ledger.told, snapshot, now=now, reach=reach)
            due = decided.loc[decided["reason"].isna(), [*KEY, "threshold", "tier"]]
            draft = ledger.draft(due, tiers=tiers, since=since)
            # Tiers that are run one by one would each stay below the limit.
            counted = draft.size + ledger.fuse.planned_since(mode, pipeline.config.schedule.last_run_at(now))
            if writes and not approved_by and counted <= limit:
                grown = find_growth_trip(pipeline, ledger.growth, draft.size, now)
            if not writes:
                planned = _rehearsed(draft)
            elif grown is not None:
                ledger.growth.trip(grown, mode=mode, run_id=run_id, at=now)
            elif approved_by or counted <= limit or not draft.size:
                ledger.close_tiers_other_than(configured, since)
                planned = ledger.carry_out(draft, day=day, at=now, message_domain=domain)
                ledger.fuse.add_plan(day, draft.size, mode=mode, run_id=run_id, at=now, approved_by=approved_by)
                today = pipeline.config.schedule.today(now)
                ledger.growth.add(mode, today, draft.size, approved=approved_by is not None)
            else:
                trip = Trip(day=day, new_notices=counted, max_notices=limit)
                ledger.fuse.trip(trip, mode=mode, run_id=run_id, at=now)
    stopped = _explain_stop(trip, grown, pipeline)
    if stopped is not None:
        raise FuseTripped(stopped)
    if writes:
        drop_old_address_hashes(pipeline, now)
    return _shares(planned, _unreachable(decided, planned), tiers)


def _approve(ledger: Planning, mode: Mode, now: datetime, *, by: str | None, limit: int) -> None:
    """Approve every trip if a person has (``by``), else those that the present hard limit allows."""
    ledger.fuse.approve(mode, at=now, by=by or MAX_NOTICES, up_to=None if by else limit)
    if by:
        ledger.growth.approve(mode, at=now)


def _explain_stop(trip: Trip | None, grown: GrowthTrip | None, pipeline: Pipeline) -> str | None:
    """Which limit stopped the run, with the cure; None if none did."""
    if trip is not None:
        return explain_trip(trip, pipeline)
    return None if grown is None else explain_growth(grown, pipeline)


def drop_old_address_hashes(pipeline: Pipeline, now: datetime) -> int:
    """Drop the address hashes of attempts that no tier and no delivery report can need. Returns how many."""
    over = pipeline.policy.window(now=now, reach=now).expires_after
    dropped = pipeline.ledger.hash_address.drop_old(
        expired_before=over - REPORTS_MAY_TAKE, tried_before=now - REPORTS_MAY_TAKE
    )
    if dropped:
        log.info("Dropped the address hashes of %d attempts that no tier needs any more.", dropped)
    return dropped


def explain_trip(trip: Trip, pipeline: Pipeline) -> str:
    """The operator's message: why nothing is sent, and what to do."""
    return (
        f"The volume fuse has tripped: {trip.new_notices} notices were new on {trip.day}, over {MAX_NOTICES} of "
        f"{trip.max_notices}; nothing was planned and nothing is sent. Look at the day in the UI, then approve it "
        f"(token-pipelines run{pipeline.config.option} --approve-volume), raise delivery.max_notices to at least "
        f"{trip.new_notices}, or fix the source."
    )


def explain_open_trip(pipeline: Pipeline) -> str | None:
    """Why the fuse stops every day at present, with the cure; None if it does not."""
    delivery = pipeline.config.delivery
    trip = pipeline.ledger.fuse.open_trip(delivery.mode, max_notices=delivery.max_notices)
    return _explain_stop(trip, open_growth_trip(pipeline, pipeline.ledger.growth), pipeline)


def _decide(pipeline: Pipeline, told: Told, snapshot: pd.DataFrame, *, now: datetime, reach: datetime) -> pd.DataFrame:
    mode = pipeline.config.delivery.mode
    history = told.history(pipeline.policy.window(now=now, reach=reach), mode)
    tokens = snapshot[list(TOKEN_COLUMNS)]
    return pipeline.policy.decide(tokens, history, now=now, reach=reach, told_before=told.before(mode))


def _refused_at_a_changed_address(pipeline: Pipeline, snapshot: pd.DataFrame) -> list[RefusedLine]:
    """Lines that were refused for good, and whose recipients have another address now."""
    mode = pipeline.config.delivery.mode
    token_ids = snapshot.loc[snapshot["reason"] == Reason.REFUSED_ADDRESS, "token_id"].tolist()
    if not token_ids or mode is not Mode.LIVE:
        return []
    present = pipeline.address_hashes(token_ids)
    refused = pipeline.ledger.told.refused(token_ids, mode)
    return [line for line in refused if _has_changed(pipeline, line, present.get((line.token_id, line.recipient_id)))]


def _has_changed(pipeline: Pipeline, line: RefusedLine, present: tuple[bytes, ...] | None) -> bool:
    """Whether the recipient has another address now. What nobody can tell counts as unchanged."""
    if present is None:  # the token is gone
        return False
    if line.address_hash is not None and not pipeline.ledger.hash_address.knows_key_of(line.address_hash):
        return False
    return line.address_hash not in present


def _rehearsed(draft: Plan) -> pd.DataFrame:
    """The notices that a real run would plan: PLANNED_COLUMNS, without ids."""
    notices = draft.new.drop_duplicates("notice_id")
    return notices.assign(notice_id=None, tier=notices["notice_tier"])[PLANNED_COLUMNS]


def _unreachable(decided: pd.DataFrame, planned: pd.DataFrame) -> pd.DataFrame:
    """Recipients who have a due token but cannot get a notice: one row each, with their most urgent tier."""
    blocked = decided[decided["reason"].isin(RECIPIENT_REASONS)]
    blocked = blocked[~among(blocked["recipient_id"], planned["recipient_id"])]
    first = blocked.assign(urgency=urgency(blocked)).sort_values("urgency", kind="stable")
    return first.drop_duplicates("recipient_id")[["tier", "reason"]]


def _shares(planned: pd.DataFrame, unreachable: pd.DataFrame, tiers: Collection[str]) -> dict[str, Share]:
    notices = planned["tier"].value_counts()
    reasons: dict[str, Counter[str]] = {tier: Counter() for tier in tiers}
    for tier, reason in zip(unreachable["tier"], unreachable["reason"], strict=True):
        if tier in reasons:
            reasons[tier][str(reason)] += 1
    return {tier: Share(tier=tier, planned=int(notices.get(tier, 0)), unreachable=reasons[tier]) for tier in tiers}
