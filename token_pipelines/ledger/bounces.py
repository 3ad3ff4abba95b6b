"""Bounces in the ledger: notices that the relay accepted and later could not deliver. One transaction each.

A bounce is stored as one more attempt, with the hash of the address that the notice went to. Planning compares it with
the recipient's present address; the tokens become due again only when the address has changed.
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
"""Used as the run id of an attempt that no run made."""

_CAN_BOUNCE: Final = (State.SENT, State.UNKNOWN)
_BEING_SENT: Final = (State.CLAIMED, State.SENDING)


class Kept(StrEnum):
    """What the ledger did with a bounce."""

    RECORDED = "recorded"
    SUPPRESSED = "suppressed"  # recorded, and the address was suppressed
    KNOWN = "known"  # read before; or the notice is in a state in which it cannot have bounced
    EARLY = "early"  # a run is sending the notice right now


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounce:
    """A delivery that the mail system gave up. ``reply`` has addresses removed.

    ``named`` is the keyed hash of the address in the report; None if the report has none.
    """

    notice_id: str
    at: datetime
    code: int | None
    enhanced: str | None
    reply: str
    address_is_dead: bool
    named: bytes | None


class Bounces:
    """The bounces of one ledger."""

    def __init__(self, engine: Engine) -> None:
        """Work on the ledger that ``engine`` reaches."""
        self._engine = engine

    def find(self, notice_ids: Sequence[str]) -> str | None:
        """The first of these ids that belongs to a notice; None if none does."""
        with self._engine.connect() as connection:
            query = select(notices.c.notice_id).where(notices.c.notice_id == func.any(list(notice_ids)))
            known = {str(found) for found in connection.scalars(query)}
        return next((notice_id for notice_id in notice_ids if notice_id in known), None)

    def keep(self, bounce: Bounce) -> Kept:
        """Turn a sent notice into a failed one. Idempotent: the same report may be read again.

        Only the first report suppresses the address: if an operator takes it off the list, reading the same mailbox
        again must not put it back. The report must give the address that we wrote to, or none: a list or an alias is
        not dead because one of its members is, and a forged report must not suppress somebody else's address.
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
        """How many notices planned on ``since`` or later the relay accepted, and how many of these bounced."""
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
    """The hash of the address that the last copy went to; None if its run was killed before it recorded that."""
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
