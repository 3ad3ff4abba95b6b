"""Reports on what was sent: notices that the relay accepted and later could not deliver, and recipients' complaints.

A bounce is stored as one more attempt, with the hash of the address that the notice went to. Whether it is believed is
judged at the end of a reading: see `judging`. Planning compares the hash with the recipient's present address; the
tokens become due again only when the address has changed.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.dialects.postgresql import insert

from token_pipelines import bounce_address
from token_pipelines.ledger.judging import BEING_SENT, CAN_BOUNCE, Changes, Evidence, carry_out, gather_evidence
from token_pipelines.ledger.stored_keys import stored_key
from token_pipelines.ledger.suppressions import COMPLAINT, suppress
from token_pipelines.ledger.tables import attempts, delivery_reports, notices
from token_pipelines.model import Mode, Stage, State

READER: Final = "bounces"
"""Used as the run id of an attempt that no run made."""

BOUNCE_KEY: Final = "bounce_key"


class Kept(StrEnum):
    """What the ledger did with a report."""

    RECORDED = "recorded"
    SUPPRESSED = "suppressed"  # recorded, and the address was suppressed
    KNOWN = "known"  # read before; or the notice is in a state in which it cannot have come back
    EARLY = "early"  # a run is sending the notice right now


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounce:
    """A delivery that the mail system gave up, or a complaint about a message.

    Attributes:
        digest: of the message that reports it.
        notice_id: the notice.
        at: when it was read.
        code: the SMTP code.
        enhanced: the enhanced status.
        reply: the other server's answer, with addresses removed.
        address_is_dead: whether the address does not exist.
        named: the keyed hashes of the address in the report, with each known key, the present one first; None if the
            report has none.
        proven: whether the report came to the address that only the notice's own email has. Otherwise anybody can have
            written it who has seen the Message-ID, and it suppresses nobody.
    """

    digest: bytes
    notice_id: str
    at: datetime
    code: int | None = None
    enhanced: str | None = None
    reply: str = ""
    address_is_dead: bool = False
    named: tuple[bytes, ...] | None = None
    proven: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Copy:
    """The last copy of a notice that may have reached the relay. ``address_hash`` is None if its run was killed."""

    run_id: str
    sent_at: datetime
    address_hash: bytes | None


class Bounces:
    """The bounces and complaints of one ledger."""

    def __init__(self, engine: Engine) -> None:
        """Work on the ledger that ``engine`` reaches."""
        self._engine = engine

    def tag(self, notice_id: str) -> str:
        """What the envelope sender of a notice's email has behind its plus."""
        return bounce_address.tag(notice_id, self._key)

    def proven(self, tags: Iterable[str]) -> list[str]:
        """The notices of those among these tags that this ledger has made."""
        return [found for tag in tags if (found := bounce_address.proven(tag, self._key)) is not None]

    @cached_property
    def _key(self) -> bytes:
        return stored_key(self._engine, BOUNCE_KEY)

    def find(self, notice_ids: Collection[str]) -> set[str]:
        """Those among these ids that belong to a notice."""
        if not notice_ids:
            return set()
        with self._engine.connect() as connection:
            query = select(notices.c.notice_id).where(notices.c.notice_id == func.any(list(notice_ids)))
            return {str(found) for found in connection.scalars(query)}

    def keep(self, bounce: Bounce) -> Kept:
        """Keep a bounce until it is judged. Idempotent: the same report may be read again.

        Only the first report about a copy counts: if an operator takes the address off the list, reading the same
        mailbox again must not put it back. The report must give the address that we wrote to, or none: a list or an
        alias is not dead because one of its members is, and a forged report must not suppress somebody else's address.

        A report that proves nothing suppresses nobody, and its notice may be planned once more.
        """
        with self._engine.begin() as connection:
            state = _lock(connection, bounce.notice_id)
            if state in BEING_SENT:
                return Kept.EARLY
            may_fail = state in CAN_BOUNCE or (bounce.proven and _failed_unproven(connection, bounce.notice_id))
            if not may_fail or _is_known(connection, bounce):
                return Kept.KNOWN
            copy = _last_copy(connection, bounce.notice_id)
            row = _attempt(bounce, copy)
            attempt_id = connection.scalar(attempts.insert().values(row).returning(attempts.c.attempt_id))
            may_suppress = bounce.proven and bounce.address_is_dead and _is_ours(bounce, copy)
            report = _report(bounce, copy) | {"attempt_id": attempt_id, "may_suppress": may_suppress}
            connection.execute(insert(delivery_reports).values(report | {"cause": bounce.enhanced}))
            return Kept.RECORDED

    def complain(self, complaint: Bounce) -> Kept:
        """Suppress the address whose owner complained. The notice stays as it is: it has arrived.

        A complaint about a list by one of its members suppresses nobody, as in `keep`.
        """
        with self._engine.begin() as connection:
            if _lock(connection, complaint.notice_id) in BEING_SENT:
                return Kept.EARLY
            copy = _last_copy(connection, complaint.notice_id)
            if copy.address_hash is None:
                return Kept.KNOWN
            verdict = {"cause": COMPLAINT, "may_suppress": True, "believed": True, "judged_at": complaint.at}
            fresh = insert(delivery_reports).values(_report(complaint, copy) | verdict).on_conflict_do_nothing()
            if connection.scalar(fresh.returning(delivery_reports.c.digest)) is None:
                return Kept.KNOWN
            if not (complaint.proven and _is_ours(complaint, copy)):
                return Kept.RECORDED
            row = {"address_hash": copy.address_hash, "at": complaint.at, "cause": COMPLAINT}
            return Kept.SUPPRESSED if suppress(connection, row) else Kept.RECORDED

    def evidence(self, *, now: datetime) -> list[Evidence]:
        """The evidence for every bounce that is judged at this instant, in the order in which they were read."""
        return gather_evidence(self._engine, now=now)

    def carry_out(self, verdicts: Mapping[bytes, bool], *, at: datetime) -> Changes:
        """Let believed notices fail, and defer the others. See `judging.carry_out`."""
        return carry_out(self._engine, verdicts, at=at)

    def count(self, *, mode: Mode, since: date) -> tuple[int, int]:
        """How many notices planned on ``since`` or later the relay accepted, and how many of these bounced."""
        last = (
            select(attempts.c.stage)
            .where(attempts.c.notice_id == notices.c.notice_id)
            .order_by(attempts.c.attempt_id.desc())
            .limit(1)
            .scalar_subquery()
        )
        came_back = last == Stage.BOUNCE  # believed or not
        sent = func.count().filter(notices.c.state == State.SENT, last.is_distinct_from(Stage.BOUNCE))
        bounced = func.count().filter(came_back)
        query = select(sent, bounced).where(notices.c.mode == mode.in_ledger, notices.c.day >= since)
        with self._engine.connect() as connection:
            delivered, back = connection.execute(query).one()
        return delivered + back, back


def _lock(connection: Connection, notice_id: str) -> str | None:
    """The notice's state, which nobody else changes until the transaction ends."""
    query = select(notices.c.state).where(notices.c.notice_id == notice_id).with_for_update()
    state: str | None = connection.scalar(query)
    return state


def _is_known(connection: Connection, bounce: Bounce) -> bool:
    """Whether this message was read before, or another report about the same copy still waits for its verdict.

    One that proves nothing does not stand in the way of one that does.
    """
    waits = (delivery_reports.c.notice_id == bounce.notice_id) & delivery_reports.c.believed.is_(None)
    query = (
        select(func.count())
        .select_from(delivery_reports)
        .outerjoin(attempts, attempts.c.attempt_id == delivery_reports.c.attempt_id)
        .where(
            (delivery_reports.c.digest == bounce.digest) | (waits & (attempts.c.proven.is_(True) | (not bounce.proven)))
        )
    )
    return bool(connection.scalar(query))


def _failed_unproven(connection: Connection, notice_id: str) -> bool:
    """Whether a notice failed by a report that proved nothing: then one that does still counts."""
    last = select(attempts.c.proven, attempts.c.stage).where(attempts.c.notice_id == notice_id)
    found = connection.execute(last.order_by(attempts.c.attempt_id.desc()).limit(1)).one_or_none()
    return found is not None and found.stage == Stage.BOUNCE and found.proven is False


def _last_copy(connection: Connection, notice_id: str) -> _Copy:
    """What the ledger knows of it. If its run was killed before it recorded that, the run that planned it stands in."""
    mine = (attempts.c.notice_id == notice_id, attempts.c.state.in_(CAN_BOUNCE), attempts.c.address_hash.is_not(None))
    query = select(attempts.c.run_id, attempts.c.at, attempts.c.address_hash).where(*mine)
    found = connection.execute(query.order_by(attempts.c.attempt_id.desc()).limit(1)).one_or_none()
    if found is not None:
        return _Copy(run_id=found.run_id, sent_at=found.at, address_hash=bytes(found.address_hash))
    planned = select(notices.c.planned_by, notices.c.planned_at).where(notices.c.notice_id == notice_id)
    run_id, planned_at = connection.execute(planned).one()
    return _Copy(run_id=run_id, sent_at=planned_at, address_hash=None)


def _is_ours(bounce: Bounce, copy: _Copy) -> bool:
    """Whether the report names the address that we wrote to, or none."""
    return copy.address_hash is not None and (bounce.named is None or copy.address_hash in bounce.named)


def _report(bounce: Bounce, copy: _Copy) -> dict[str, Any]:
    return {
        "digest": bounce.digest,
        "notice_id": bounce.notice_id,
        "run_id": copy.run_id,
        "sent_at": copy.sent_at,
        "at": bounce.at,
    }


def _attempt(bounce: Bounce, copy: _Copy) -> dict[str, Any]:
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
        "address_hash": copy.address_hash or (bounce.named and bounce.named[0]),
        "proven": bounce.proven,
    }
