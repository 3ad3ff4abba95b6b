"""Bounces inside the ledger: a notice that the relay had taken, and that came back. One transaction each.

A bounce is kept as one more attempt, with the hash of the address that the notice went to: planning compares it with
the recipient's present address, and only another address makes the tokens due again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, select, update
from sqlalchemy.dialects.postgresql import insert

from token_pipelines.ledger.tables import attempts, notices, suppressions
from token_pipelines.model import Mode, Stage, State

READER: Final = "bounces"
"""Stands for a run's id in an attempt that no run made."""

_CAN_BOUNCE: Final = (State.SENT, State.UNKNOWN)
_BEING_SENT: Final = (State.CLAIMED, State.SENDING)


class Kept(StrEnum):
    """What became of a bounce in the ledger."""

    RECORDED = "recorded"
    SUPPRESSED = "suppressed"  # recorded, and nobody writes to the address any more
    KNOWN = "known"  # read before; or the notice is in a state in which nothing of it can have come back
    EARLY = "early"  # a run has the notice in its hands at this moment


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounce:
    """A delivery that was given up. ``reply`` has addresses removed.

    ``named`` is the keyed hash of the address that the report names; None when it names none.
    """

    notice_id: str
    at: datetime
    code: int | None
    enhanced: str | None
    reply: str
    address_is_dead: bool
    named: bytes | None


class Bounces:
    """What came back."""

    def __init__(self, engine: Engine) -> None:
        """Work on the ledger that ``engine`` reaches."""
        self._engine = engine

    def find(self, notice_ids: Sequence[str]) -> str | None:
        """The first of these ids that is a notice's."""
        with self._engine.connect() as connection:
            query = select(notices.c.notice_id).where(notices.c.notice_id == func.any(list(notice_ids)))
            known = {str(found) for found in connection.scalars(query)}
        return next((notice_id for notice_id in notice_ids if notice_id in known), None)

    def keep(self, bounce: Bounce) -> Kept:
        """Turn what was sent into what failed, once, however often the report is read.

        The address is suppressed with the first report only: a person who takes it off the list is not overruled by the
        same report in the same mailbox. And only when the report names the address that we wrote to, or none: a list or
        an alias is not dead because one of its members is, and a forged report must not silence a stranger.
        """
        with self._engine.begin() as connection:
            this = notices.c.notice_id == bounce.notice_id
            state = connection.scalar(select(notices.c.state).where(this).with_for_update())
            if state in _BEING_SENT:
                return Kept.EARLY
            if state not in _CAN_BOUNCE:
                return Kept.KNOWN
            sent_to = _sent_to(connection, bounce.notice_id)
            connection.execute(update(notices).where(this).values(state=State.FAILED, sent_at=None))
            connection.execute(attempts.insert().values(_attempt(bounce, sent_to)))
            if not bounce.address_is_dead or sent_to is None or (bounce.named is not None and sent_to != bounce.named):
                return Kept.RECORDED
            cause = f"a delivery report said so: {bounce.enhanced}"
            row = {"address_hash": sent_to, "at": bounce.at, "cause": cause}
            added = connection.execute(insert(suppressions).values(row).on_conflict_do_nothing())
            return Kept.SUPPRESSED if added.rowcount else Kept.RECORDED

    def count(self, *, mode: Mode, since: date) -> tuple[int, int]:
        """Of the notices planned on ``since`` or later: how many the relay took, and how many of these came back."""
        came_back = (
            select(attempts.c.attempt_id)
            .where(attempts.c.notice_id == notices.c.notice_id, attempts.c.stage == Stage.BOUNCE)
            .exists()
        )
        bounced = func.count().filter(notices.c.state == State.FAILED, came_back)
        sent = func.count().filter(notices.c.state == State.SENT)
        query = select(sent, bounced).where(notices.c.mode == mode.in_ledger, notices.c.day >= since)
        with self._engine.connect() as connection:
            delivered, back = connection.execute(query).one()
        return delivered + back, back


def _sent_to(connection: Connection, notice_id: str) -> bytes | None:
    """The hash of the address that the last copy went to; None when its sender died before it could say."""
    mine = (attempts.c.notice_id == notice_id, attempts.c.state.in_(_CAN_BOUNCE), attempts.c.address_hash.is_not(None))
    query = select(attempts.c.address_hash).where(*mine).order_by(attempts.c.attempt_id.desc()).limit(1)
    found = connection.scalar(query)
    return None if found is None else bytes(found)


def _attempt(bounce: Bounce, sent_to: bytes | None) -> dict[str, Any]:
    return {
        "notice_id": bounce.notice_id,
        "at": bounce.at,
        "run_id": READER,
        "state": State.FAILED,
        "stage": Stage.BOUNCE,
        "code": bounce.code,
        "enhanced": bounce.enhanced,
        "reply": bounce.reply,
        "queue_id": None,
        "address_hash": sent_to or bounce.named,
    }
