"""Planning in the ledger: compares due tokens with waiting notices, and inserts the new notices. One transaction.

`token_pipelines.policy` decides which tokens are due, from the history that ``told`` returns.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import Connection, func, select, text, update

from token_pipelines.ledger.copying import copy_in, copy_out, random_uuids
from token_pipelines.ledger.fuse import Fuse
from token_pipelines.ledger.growth import Growth
from token_pipelines.ledger.tables import notice_tokens, notices
from token_pipelines.ledger.told import RefusedLine, Told
from token_pipelines.ledger.transactions import inside
from token_pipelines.model import WAITING, Mode, Reason, State
from token_pipelines.policy import urgency
from token_pipelines.token_facts import INSTANT

PLANNED_COLUMNS: Final = ["notice_id", "recipient_id", "tier"]

_LINE_FIELDS: Final = [
    "notice_id", "token_id", "recipient_id", "expires_at", "threshold", "token_tier", "notice_tier", "is_first",
]  # fmt: skip

_CREATE_NEW_LINES: Final = """
CREATE TEMPORARY TABLE new_lines (notice_id uuid, token_id text, recipient_id text, expires_at timestamptz,
    threshold timestamptz, token_tier text, notice_tier text, is_first boolean) ON COMMIT DROP
"""
_INSERT_NOTICES: Final = """
INSERT INTO token_pipelines.notices
    (notice_id, day, mode, tier, recipient_id, state, message_id, planned_by, planned_at)
SELECT notice_id, CAST(:day AS date), :mode, notice_tier, recipient_id, :state,
    '<' || notice_id || '@' || CAST(:domain AS text) || '>', :run_id, CAST(:at AS timestamptz)
FROM new_lines WHERE is_first
"""
_INSERT_LINES: Final = """
INSERT INTO token_pipelines.notice_tokens (notice_id, token_id, recipient_id, expires_at, threshold, mode, tier)
SELECT notice_id, token_id, recipient_id, expires_at, threshold, :mode, token_tier FROM new_lines
ON CONFLICT (token_id, recipient_id, expires_at, threshold, mode) WHERE NOT released DO NOTHING
"""
_DELETE_EMPTY: Final = """
DELETE FROM token_pipelines.notices AS notice USING new_lines AS fresh
WHERE notice.notice_id = fresh.notice_id AND fresh.is_first
  AND NOT EXISTS (SELECT FROM token_pipelines.notice_tokens AS kept WHERE kept.notice_id = notice.notice_id)
RETURNING notice.notice_id
"""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What planning will do: insert ``new``, withdraw the notices in ``withdrawn``, and leave ``kept`` unchanged.

    ``new`` has the columns of `Planning.draft`'s input and ``notice_id``; one row per token.
    """

    new: pd.DataFrame
    withdrawn: list[str]
    kept: pd.DataFrame
    size: int
    """How many recipients get a notice and have none that waits. The fuse counts these.

    A notice that replaces a waiting one does not count, since it adds no email.
    """


class Planning:
    """The ledger during one run's planning transaction."""

    def __init__(self, connection: Connection, *, run_id: str, mode: Mode) -> None:
        """Plan on this connection, whose transaction belongs to the caller."""
        self._connection = connection
        self._run_id = run_id
        self._mode = mode.in_ledger
        self.told = Told(inside(connection))
        self.fuse = Fuse(inside(connection))
        self.growth = Growth(inside(connection))

    def release(self, refused: Collection[RefusedLine]) -> int:
        """Release notices that were refused for good at an address that has changed since: their tokens are due again.

        Args:
            refused: what `Told.refused` returned before this transaction began.

        Returns:
            How many notices were released: only those that the ledger still has as refused at the same address.
        """
        if not refused:
            return 0
        still_refused = set(self.told.refused([line.token_id for line in refused], self._mode))
        ids = list({line.notice_id for line in refused if line in still_refused})
        lines = update(notice_tokens).where(notice_tokens.c.notice_id == func.any(ids))
        self._connection.execute(lines.values(released=True, reason=Reason.REFUSED_ADDRESS))
        return len(ids)

    def draft(self, due: pd.DataFrame, *, tiers: Collection[str], since: datetime) -> Plan:
        """Group due tokens into notices and compare them with the waiting notices. Writes nothing.

        Args:
            due: one row per (token, recipient) that is due: token_id, recipient_id, expires_at, threshold and
                tier, a categorical whose categories go from most to least urgent.
            tiers: plan only the notices whose tier is one of these.
            since: the earliest time at which a notice that still waits can have been planned.
        """
        tiers_by_urgency = due["tier"].cat.categories
        most_urgent = urgency(due).groupby(due["recipient_id"]).transform("min") % max(len(tiers_by_urgency), 1)
        lines = due.assign(
            notice_tier=pd.Categorical.from_codes(most_urgent, tiers_by_urgency).astype("str"),
            token_tier=due["tier"].astype("str"),
        )
        lines = lines[lines["notice_tier"].isin(list(tiers))]
        waiting = self._waiting(since)
        waiting = waiting[among(waiting["recipient_id"], lines["recipient_id"])]
        kept = _unchanged(waiting, lines[among(lines["recipient_id"], waiting["recipient_id"])])
        withdrawn = waiting.loc[~among(waiting["notice_id"], kept["notice_id"]), "notice_id"].unique().tolist()
        new = lines[~among(lines["recipient_id"], kept["recipient_id"])]
        size = int(new.loc[~among(new["recipient_id"], waiting["recipient_id"]), "recipient_id"].nunique())
        return Plan(new=_numbered(new), withdrawn=withdrawn, kept=kept, size=size)

    def _waiting(self, since: datetime) -> pd.DataFrame:
        """The waiting notices, one row per token."""
        query = (
            select(
                notices.c.notice_id,
                notices.c.recipient_id,
                notices.c.tier,
                notice_tokens.c.token_id,
                notice_tokens.c.expires_at,
                notice_tokens.c.threshold,
            )
            .join(notice_tokens, notice_tokens.c.notice_id == notices.c.notice_id)
            .where(notices.c.mode == self._mode, notices.c.planned_at >= since, notices.c.state.in_(WAITING))
            .where(~notice_tokens.c.released)
        )
        columns = dict.fromkeys(["notice_id", "recipient_id", "tier", "token_id"], "str")
        instants = dict.fromkeys(["expires_at", "threshold"], INSTANT)
        frame: pd.DataFrame = copy_out(self._connection, query, columns | instants).to_pandas()
        return frame

    def carry_out(self, plan: Plan, *, day: date, at: datetime, message_domain: str) -> pd.DataFrame:
        """Withdraw notices, then insert the new ones. Returns PLANNED_COLUMNS of the new and the kept notices.

        A token that violates the unique key is in a notice already, and is left out.
        """
        self.withdraw(plan.withdrawn)
        is_first = ~plan.new["notice_id"].duplicated()
        self._connection.execute(text(_CREATE_NEW_LINES))
        lines = plan.new.assign(is_first=is_first)
        copy_in(self._connection, "new_lines", pa.table({name: pa.array(lines[name]) for name in _LINE_FIELDS}))
        mode = {"mode": self._mode}
        notice = {"day": day, "state": State.PLANNED, "domain": message_domain, "run_id": self._run_id, "at": at}
        self._connection.execute(text(_INSERT_NOTICES), mode | notice)
        promised = self._connection.execute(text(_INSERT_LINES), mode).rowcount
        fresh = lines.loc[is_first, ["notice_id", "recipient_id", "notice_tier"]]
        if promised < len(lines):
            empty = {str(notice_id) for notice_id in self._connection.scalars(text(_DELETE_EMPTY))}
            fresh = fresh[~fresh["notice_id"].isin(list(empty))]
        return pd.concat([fresh.rename(columns={"notice_tier": "tier"}), plan.kept], ignore_index=True)

    def close_tiers_other_than(self, configured: Sequence[str], since: datetime) -> int:
        """Withdraw waiting notices of tiers that are no longer configured. Returns how many.

        A notice in doubt keeps its tokens and its Message-ID, and moves to the last configured tier, which sends it
        again. The email says the true remaining time, whatever the tier's name.
        """
        orphaned = (
            notices.c.mode == self._mode,
            notices.c.planned_at >= since,
            notices.c.tier.not_in(configured),
        )
        query = select(notices.c.notice_id).where(*orphaned, notices.c.state.in_(WAITING))
        orphans = [str(notice_id) for notice_id in self._connection.scalars(query)]
        self.withdraw(orphans)
        in_doubt = update(notices).where(*orphaned, notices.c.state == State.UNKNOWN)
        self._connection.execute(in_doubt.values(tier=configured[-1]))
        return len(orphans)

    def withdraw(self, notice_ids: Collection[str]) -> None:
        """Withdraw waiting notices; their tokens may be planned again at their present urgency."""
        if not notice_ids:
            return
        ids = list(notice_ids)
        taken_back = {"state": State.WITHDRAWN, "reason": Reason.SUPERSEDED}
        self._connection.execute(
            update(notices).where(notices.c.notice_id == func.any(ids), notices.c.state.in_(WAITING)).values(taken_back)
        )
        self._connection.execute(
            update(notice_tokens).where(notice_tokens.c.notice_id == func.any(ids)).values(released=True)
        )


def among(column: pd.Series, values: pd.Series) -> np.ndarray:
    """Per row whether a string is among ``values``. Like `Series.isin`, which converts long columns to lists."""
    kind = pa.large_string()
    found = pc.is_in(pa.array(column, kind), pa.array(values, kind))
    inside: np.ndarray = found.to_numpy(zero_copy_only=False)
    return inside


def _numbered(lines: pd.DataFrame) -> pd.DataFrame:
    """Give each recipient's lines a new ``notice_id``; sorted by this id."""
    codes, recipients = pd.factorize(lines["recipient_id"])
    order = np.argsort(codes, kind="stable")
    ids = random_uuids(len(recipients)).take(pa.array(codes[order]))
    return lines.take(order).assign(notice_id=ids.to_pandas().array)


def _unchanged(waiting: pd.DataFrame, lines: pd.DataFrame) -> pd.DataFrame:
    """The waiting notices that equal those that would be planned now: PLANNED_COLUMNS, one row per notice."""
    key = ["recipient_id", "token_id", "expires_at", "threshold", "tier"]
    both = waiting.merge(lines.assign(tier=lines["notice_tier"])[key], on=key, how="left", indicator=True)
    same = (both["_merge"] == "both").groupby(both["notice_id"]).transform("all")
    wanted = lines.groupby("recipient_id").size()
    complete = both.groupby("notice_id")["token_id"].transform("size") == both["recipient_id"].map(wanted)
    return both.loc[same & complete, PLANNED_COLUMNS].drop_duplicates(ignore_index=True)
