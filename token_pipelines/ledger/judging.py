"""Delivery reports that are judged: the evidence for each of them, and what a verdict changes.

A report is kept with its notice, so it is counted once, whichever mailbox it is read from, and however often. A verdict
may change in a later reading. What the earlier one did is then taken back, unless the notice has gone on since.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Engine, Row, Select, and_, delete, exists, func, or_, select, update

from token_pipelines.ledger.suppressions import reported, suppress
from token_pipelines.ledger.tables import attempts, delivery_reports, notice_tokens, notices, suppressions
from token_pipelines.model import Stage, State

OPEN_FOR: Final = timedelta(days=14)
"""How long a report is judged again after it was read."""

SETTLED_AFTER: Final = timedelta(days=1)
"""What was sent this long ago and has not come back, has arrived. Only such a notice shows that mail gets through."""

REMEMBERED_FOR: Final = timedelta(days=60)
"""How far back reports on the same address are looked for."""

CAN_BOUNCE: Final = (State.SENT, State.UNKNOWN)
BEING_SENT: Final = (State.CLAIMED, State.SENDING)

_AT_A_TIME: Final = 500  # reports whose verdicts are carried out in one transaction
_LONGEST_RUN: Final = timedelta(days=2)


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What the ledger knows about a report.

    Attributes:
        digest: the report's message.
        believed: the present verdict; None if there is none yet.
        run_id: the run that sent the email.
        returned: how many emails of this run came back, this one included.
        delivered: how many emails of this run the relay accepted, and did not come back.
        days: on how many different days, in UTC, an email to this address was sent and came back, without one that
            arrived since.
        is_delivering: whether anything has arrived anywhere that was sent after the first of these.
    """

    digest: bytes
    believed: bool | None
    run_id: str
    returned: int
    delivered: int
    days: int
    is_delivering: bool


@dataclass(kw_only=True)
class Changes:
    """How many notices have failed or were deferred, and how many addresses were suppressed."""

    failed: int = 0
    deferred: int = 0
    suppressed: int = 0
    taken_back: int = 0  # of the deferred: they had failed


def gather_evidence(engine: Engine, *, now: datetime) -> list[Evidence]:
    """The evidence for every report that is judged at this instant, in the order in which they were read."""
    with engine.begin() as connection:
        return [
            Evidence(
                digest=bytes(row.digest),
                believed=row.believed,
                run_id=row.run_id,
                returned=row.returned,
                delivered=row.delivered or 0,
                days=row.days or 1,
                is_delivering=row.arrived is not None and row.arrived >= (row.first or row.sent_at),
            )
            for row in connection.execute(_evidence(now))
        ]


def _evidence(now: datetime) -> Select[Any]:
    report = delivery_reports.c
    is_open = and_(report.at >= now - OPEN_FOR, report.attempt_id.is_not(None))
    returned = (
        select(report.run_id, func.count(report.notice_id.distinct()).label("returned"))
        .where(report.attempt_id.is_not(None))
        .group_by(report.run_id)
        .subquery()
    )
    copy = attempts.alias("copy")
    oldest = select(func.min(report.sent_at)).where(is_open).scalar_subquery()
    about = delivery_reports.alias("about")
    is_about_it = (about.c.run_id == copy.c.run_id, about.c.notice_id == copy.c.notice_id)
    came_back = exists().where(*is_about_it, about.c.attempt_id.is_not(None)).correlate(copy)
    delivered = (
        select(copy.c.run_id, func.count(copy.c.notice_id.distinct()).label("delivered"))
        .where(copy.c.run_id.in_(select(report.run_id).where(is_open)), copy.c.state == State.SENT)
        .where(copy.c.at >= oldest - _LONGEST_RUN, ~came_back)
        .group_by(copy.c.run_id)
        .subquery()
    )
    each = delivery_reports.alias("each")
    its_attempt = attempts.alias("its_attempt")
    reported_hashes = (
        select(its_attempt.c.address_hash)
        .join(each, its_attempt.c.attempt_id == each.c.attempt_id)
        .where(each.c.at >= now - REMEMBERED_FOR)
    )
    last_good = (
        select(copy.c.address_hash, func.max(copy.c.at).label("at"))
        .where(copy.c.at >= now - REMEMBERED_FOR, copy.c.state == State.SENT, ~came_back)
        .where(copy.c.address_hash.in_(reported_hashes))
        .group_by(copy.c.address_hash)
        .subquery()
    )
    on_address = (
        select(
            its_attempt.c.address_hash,
            func.count(func.date(each.c.sent_at).distinct()).label("days"),
            func.min(each.c.sent_at).label("first"),
        )
        .join(its_attempt, its_attempt.c.attempt_id == each.c.attempt_id)
        .outerjoin(last_good, last_good.c.address_hash == its_attempt.c.address_hash)
        .where(each.c.at >= now - REMEMBERED_FOR, or_(last_good.c.at.is_(None), each.c.sent_at > last_good.c.at))
        .group_by(its_attempt.c.address_hash)
        .subquery()
    )
    new = delivery_reports.alias("new")
    unjudged = exists().where(new.c.notice_id == notices.c.notice_id, new.c.believed.is_(None)).correlate(notices)
    arrived = (
        select(func.max(notices.c.sent_at))
        .where(notices.c.state == State.SENT, notices.c.sent_at <= now - SETTLED_AFTER, ~unjudged)
        .where(notices.c.planned_at >= now - REMEMBERED_FOR)
        .scalar_subquery()
    )
    return (
        select(
            report.digest,
            report.believed,
            report.run_id,
            report.sent_at,
            returned.c.returned,
            delivered.c.delivered,
            on_address.c.days,
            on_address.c.first,
            arrived.label("arrived"),
        )
        .join(attempts, attempts.c.attempt_id == report.attempt_id)
        .join(returned, returned.c.run_id == report.run_id)
        .outerjoin(on_address, on_address.c.address_hash == attempts.c.address_hash)
        .outerjoin(delivered, delivered.c.run_id == report.run_id)
        .where(is_open)
        .order_by(report.attempt_id)
    )


def carry_out(engine: Engine, verdicts: Mapping[bytes, bool], *, at: datetime) -> Changes:
    """Carry out verdicts that are new, or differ from the present ones. ``verdicts`` has them by digest."""
    changes = Changes()
    digests = list(verdicts)
    for start in range(0, len(digests), _AT_A_TIME):
        with engine.begin() as connection:
            for row in _locked(connection, digests[start : start + _AT_A_TIME]):
                _carry_out(connection, row, verdicts[bytes(row.digest)], changes, at=at)
    return changes


def _locked(connection: Connection, digests: Sequence[bytes]) -> Sequence[Row[Any]]:
    """These reports with the notice's state and its last attempt. Nobody else changes the notices meanwhile."""
    newest = attempts.alias("newest")
    last = select(func.max(newest.c.attempt_id)).where(newest.c.notice_id == notices.c.notice_id).scalar_subquery()
    query = (
        select(delivery_reports, notices.c.state, last.label("last"), attempts.c.address_hash, attempts.c.proven)
        .join(notices, notices.c.notice_id == delivery_reports.c.notice_id)
        .join(attempts, attempts.c.attempt_id == delivery_reports.c.attempt_id)
        .where(delivery_reports.c.digest == func.any(list(digests)))
        .order_by(delivery_reports.c.attempt_id)
        .with_for_update(of=notices)
    )
    return connection.execute(query).all()


def _carry_out(connection: Connection, row: Row[Any], verdict: bool, changes: Changes, *, at: datetime) -> None:  # noqa: FBT001 -- what is carried out
    if row.believed is None and row.state in BEING_SENT:
        return  # the next reading judges it
    # A notice that was sent or planned again since has another fate by now; the verdict is then only written down.
    is_its_fate = row.last == row.attempt_id and row.state in (*CAN_BOUNCE, State.DEFERRED, State.FAILED)
    state = State.FAILED if verdict else State.DEFERRED
    this = notices.c.notice_id == row.notice_id
    if not verdict and row.state == State.FAILED and _was_freed(connection, row.notice_id):
        is_its_fate = False  # its tokens may be in another notice by now
    if is_its_fate and row.state != state:
        connection.execute(update(notices).where(this).values(state=state, sent_at=None))
        if verdict and row.proven is False:
            release_once(connection, row.notice_id)
        changes.failed += verdict
        changes.deferred += not verdict
        changes.taken_back += not verdict and row.believed is True
    if row.may_suppress and row.address_hash is not None:
        mine = {"address_hash": row.address_hash, "at": row.judged_at, "cause": reported(row.cause)}
        if verdict and is_its_fate:
            changes.suppressed += suppress(connection, mine | {"at": at})
        elif not verdict and row.believed:
            connection.execute(delete(suppressions).filter_by(**mine))
    this_report = delivery_reports.c.digest == row.digest
    connection.execute(update(delivery_reports).where(this_report).values(believed=verdict, judged_at=at))


def _was_freed(connection: Connection, notice_id: str) -> bool:
    query = select(notice_tokens.c.token_id).where(notice_tokens.c.notice_id == notice_id, notice_tokens.c.released)
    return connection.execute(query.limit(1)).first() is not None


def release_once(connection: Connection, notice_id: str) -> None:
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
