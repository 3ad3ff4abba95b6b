"""Notices in doubt that no run sends again by itself, and a person's decision on them."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, select, text, update

from token_pipelines.ledger.tables import attempts, notices
from token_pipelines.model import Mode, State

PERSON: Final = "doubt"
"""Used as the run id of a decision: no run made it."""

_LOCK: Final = text("SELECT pg_advisory_xact_lock_shared(:lock)")


class Held(StrEnum):
    """Why no run sends a notice in doubt again by itself."""

    HOLD = "hold"  # delivery.on_unknown says so
    MAX_ATTEMPTS = "max_attempts"
    OVER = "over"  # it was planned too long ago: its tiers are over


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What decides whether a run sends a notice in doubt again: the mode, and the config's section ``delivery``."""

    mode: Mode
    resend: bool
    max_attempts: int
    since: datetime
    """Notices that were planned earlier are no longer sent."""


class Doubt:
    """The notices in doubt of one ledger."""

    def __init__(self, engine: Engine, *, lock: int) -> None:
        """Work on the ledger that ``engine`` reaches; decide while nobody plans under the advisory lock ``lock``."""
        self._engine = engine
        self._lock = lock

    def held(self, rules: Rules) -> dict[str, Held]:
        """The notices that wait for a person, oldest first, and why each one does."""
        query = (
            select(notices.c.notice_id, notices.c.attempts, notices.c.planned_at)
            .where(notices.c.mode == rules.mode.in_ledger, notices.c.state == State.UNKNOWN)
            .order_by(notices.c.planned_at, notices.c.notice_id)
        )
        with self._engine.connect() as connection:
            reasons = {str(row.notice_id): _why(row, rules) for row in connection.execute(query)}
        return {notice_id: why for notice_id, why in reasons.items() if why is not None}

    def in_doubt(self, notice_ids: Collection[str], rules: Rules) -> set[str]:
        """Those of these notices that are in doubt, held or not."""
        mine = notices.c.notice_id == func.any(list(notice_ids))
        query = select(notices.c.notice_id).where(mine, notices.c.mode == rules.mode.in_ledger)
        with self._engine.connect() as connection:
            return {str(found) for found in connection.scalars(query.where(notices.c.state == State.UNKNOWN))}

    def resend(self, notice_ids: Collection[str], *, at: datetime) -> int:
        """Let the next run send these notices, as if they had not been delivered. Returns how many were in doubt."""
        return self._decide(notice_ids, {"state": State.DEFERRED}, "a person chose to send it again", at)

    def accept(self, notice_ids: Collection[str], *, at: datetime) -> int:
        """Count these notices as sent, at the instant of their last attempt. Returns how many were in doubt."""
        tried = select(func.max(attempts.c.at)).where(attempts.c.notice_id == notices.c.notice_id).scalar_subquery()
        sent = {"state": State.SENT, "sent_at": func.coalesce(tried, notices.c.first_tried_at, at)}
        return self._decide(notice_ids, sent, "a person counts it as sent", at)

    def _decide(self, notice_ids: Collection[str], values: dict[str, Any], reply: str, at: datetime) -> int:
        mine = (notices.c.notice_id == func.any(list(notice_ids)), notices.c.state == State.UNKNOWN)
        with self._engine.begin() as connection:
            connection.execute(_LOCK, {"lock": self._lock})
            decided = update(notices).where(*mine).values(values).returning(notices.c.notice_id)
            ids = [str(found) for found in connection.scalars(decided)]
            _note(connection, ids, values["state"], reply, at)
        return len(ids)


def _why(row: Any, rules: Rules) -> Held | None:  # noqa: ANN401 -- a row
    if row.planned_at < rules.since:
        return Held.OVER
    if not rules.resend:
        return Held.HOLD
    return Held.MAX_ATTEMPTS if row.attempts >= rules.max_attempts else None


def _note(connection: Connection, ids: Collection[str], state: State, reply: str, at: datetime) -> None:
    """Keep the decision among the notice's attempts, where `history` shows it."""
    rows = [{"notice_id": each, "at": at, "run_id": PERSON, "state": state, "reply": reply} for each in ids]
    if rows:
        connection.execute(attempts.insert(), rows)
