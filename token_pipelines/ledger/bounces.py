"""Bounces in the ledger: notices that the relay accepted and later could not deliver. One transaction each.

A bounce is stored as one more attempt, with the hash of the address that the notice went to. Planning compares it with
the recipient's present address; the tokens become due again only when the address has changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, select, update
from sqlalchemy.dialects.postgresql import insert

from token_pipelines import bounce_address
from token_pipelines.ledger.stored_keys import stored_key
from token_pipelines.ledger.tables import attempts, notice_tokens, notices, suppressions
from token_pipelines.model import Mode, Stage, State

READER: Final = "bounces"
"""Used as the run id of an attempt that no run made."""

BOUNCE_KEY: Final = "bounce_key"

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

    ``named`` are the keyed hashes of the address in the report, with each known key, the present one first; None if the
    report has none. ``proven`` says whether the
    report came to the address that only the notice's own email has; otherwise anybody can have written it who has seen
    the Message-ID.
    """

    notice_id: str
    at: datetime
    code: int | None
    enhanced: str | None
    reply: str
    address_is_dead: bool
    named: tuple[bytes, ...] | None
    proven: bool = False


class Bounces:
    """The bounces of one ledger."""

    def __init__(self, engine: Engine) -> None:
        """Work on the ledger that ``engine`` reaches."""
        self._engine = engine

    def tag(self, notice_id: str) -> str:
        """What the envelope sender of a notice's email has behind its plus."""
        return bounce_address.tag(notice_id, self._key)

    def prove(self, tags: Sequence[str]) -> str | None:
        """The notice of the first of these tags that this ledger has made; None if it has made none."""
        return self.find([found for tag in tags if (found := bounce_address.proven(tag, self._key)) is not None])

    @cached_property
    def _key(self) -> bytes:
        return stored_key(self._engine, BOUNCE_KEY)

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

        A report that proves nothing suppresses nobody, and its notice may be planned once more.
        """
        with self._engine.begin() as connection:
            this = notices.c.notice_id == bounce.notice_id
            state = connection.scalar(select(notices.c.state).where(this).with_for_update())
            if state in _BEING_SENT:
                return Kept.EARLY
            if state not in _CAN_BOUNCE and not (bounce.proven and _failed_unproven(connection, bounce.notice_id)):
                return Kept.KNOWN
            sent_to = _sent_to(connection, bounce.notice_id)
            connection.execute(update(notices).where(this).values(state=State.FAILED, sent_at=None))
            connection.execute(attempts.insert().values(_attempt(bounce, sent_to)))
            if not bounce.proven:
                _release_once(connection, bounce.notice_id)
                return Kept.RECORDED
            if (
                not bounce.address_is_dead
                or sent_to is None
                or (bounce.named is not None and sent_to not in bounce.named)
            ):
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


def _failed_unproven(connection: Connection, notice_id: str) -> bool:
    """Whether a notice failed by a report that proved nothing: then one that does still counts."""
    reports = (attempts.c.notice_id == notice_id, attempts.c.stage == Stage.BOUNCE)
    query = select(attempts.c.proven).where(*reports).order_by(attempts.c.attempt_id.desc()).limit(1)
    return connection.scalar(query) is False


def _release_once(connection: Connection, notice_id: str) -> None:
    """Free the lines of a notice to be planned again, except those that were freed in this way before."""
    line, before = notice_tokens, notice_tokens.alias()
    freed_before = (
        select(before.c.token_id)
        .join(notices, notices.c.notice_id == before.c.notice_id)
        .join(attempts, attempts.c.notice_id == before.c.notice_id)
        .where(notices.c.recipient_id == line.c.recipient_id, before.c.notice_id != line.c.notice_id)
        .where(*(before.c[name] == line.c[name] for name in ("token_id", "expires_at", "threshold", "mode")))
        .where(before.c.released, attempts.c.stage == Stage.BOUNCE, attempts.c.proven.is_(False))
        .exists()
    )
    connection.execute(update(line).where(line.c.notice_id == notice_id, ~freed_before).values(released=True))


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
        "address_hash": sent_to or (bounce.named and bounce.named[0]),
        "proven": bounce.proven,
    }
