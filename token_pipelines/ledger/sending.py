"""Sending inside the ledger: claim, mark, record. The states and their order are those of `model.State`.

A mark is committed before any of the message's text goes out, in the same statement that records the connection's
previous outcome: one commit a message. What a killed run leaves in doubt is therefore what was on a socket, and no
more.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, and_, func, or_, select, text, update

from token_pipelines.ledger.heartbeat import LEASE
from token_pipelines.ledger.statements import Marks, Statement, Value
from token_pipelines.ledger.tables import notice_tokens, notices
from token_pipelines.model import WAITING, DueToken, Mode, Notice, Outcome, Reason, State

# Of a run that was held for dead only a late 250 counts: another answer says nothing of what others have sent since.
# A try that was answered "not now", or cut off before the dot, does not count: a greylisted notice or a relay that goes
# down must not use up what a doubt may be resent.
_RECORD: Final = """
recorded AS (
    UPDATE notices SET state = :state, claimed_by = NULL, claimed_from = NULL,
        sent_at = CASE WHEN :state = 'sent' THEN CAST(:at AS timestamptz) END,
        attempts = attempts
            - CASE WHEN state = 'sending' AND (CAST(:code AS int) BETWEEN 400 AND 499
                OR (CAST(:code AS int) IS NULL AND CAST(:stage AS text) <> 'dot')) THEN 1 ELSE 0 END
    WHERE notice_id = :recorded_id
        AND (claimed_by = :run_id OR (:state = 'sent' AND (state = 'unknown' OR claimed_from = 'unknown')))
), logged AS (
    INSERT INTO attempts
        (notice_id, at, run_id, state, stage, code, enhanced, reply, queue_id, address_hash)
    VALUES (:recorded_id, :at, :run_id, :state, :stage, :code, :enhanced, :reply,
        :queue_id, :address_hash)
)
"""
_MARK: Final = """
marked AS (
    UPDATE notices SET state = 'sending', attempts = attempts + 1,
        first_tried_at = CASE WHEN claimed_from = 'unknown' THEN first_tried_at ELSE CAST(:now AS timestamptz) END
    WHERE notice_id = :notice_id AND state = 'claimed' AND claimed_by = :run_id
    RETURNING notice_id
)
"""
_RECORD_ONLY: Final = Statement.named("record", f"WITH {_RECORD} SELECT 1")
_MARK_ONLY: Final = Statement.named("mark", f"WITH {_MARK} SELECT count(*) FROM marked")  # noqa: S608 -- constants only
_RECORD_AND_MARK: Final = Statement.named(
    "record_and_mark",
    f"WITH {_RECORD}, {_MARK} SELECT count(*) FROM marked",  # noqa: S608 -- constants only
)

_CLAIMED: Final = (
    "notice_id",
    "recipient_id",
    "tier",
    "message_id",
    "claimed_from",
    "attempts",
    "first_tried_at",
)
_DEAD: Final = text(f"""
SELECT owner.claimed_by, run.run_id IS NULL OR run.ended_at IS NOT NULL
    OR run.heartbeat_at < clock_timestamp() - interval '{LEASE}'
FROM (SELECT DISTINCT claimed_by FROM notices
      WHERE state IN ('claimed', 'sending') AND claimed_by <> :run_id) AS owner
LEFT JOIN runs AS run ON run.run_id = owner.claimed_by
""")  # noqa: S608 -- constants only
_DOUBT: Final = text("""
WITH doubted AS (
    UPDATE notices SET state = 'unknown', claimed_by = NULL, claimed_from = NULL
    WHERE state = 'sending' AND claimed_by = :dead AND (CAST(:ids AS uuid[]) IS NULL OR notice_id = ANY(:ids))
    RETURNING notice_id
)
INSERT INTO attempts (notice_id, at, run_id, state, reply)
SELECT notice_id, clock_timestamp(), :dead, 'unknown', 'the sending process ended before an answer came' FROM doubted
""")
_GIVE_BACK: Final = text("""
UPDATE notices SET state = claimed_from, claimed_by = NULL, claimed_from = NULL
WHERE state = 'claimed' AND claimed_by = :dead AND (CAST(:ids AS uuid[]) IS NULL OR notice_id = ANY(:ids))
""")


@dataclass(frozen=True, kw_only=True)
class Record:
    """What became of one attempt, and at which address, as its keyed hash."""

    notice_id: str
    outcome: Outcome
    at: datetime
    address_hash: bytes


class Sending:
    """The ledger while one run sends from it. Safe to share between that run's threads."""

    def __init__(self, engine: Engine, *, run_id: str, mode: Mode, durable: bool, claim_lock: int) -> None:
        """Send for the run ``run_id``; with ``durable`` every mark waits for the disk."""
        self._engine = engine
        self._run_id = run_id
        self._mode = mode
        self._marks = Marks(engine, durable=durable)
        self._claim_lock = claim_lock
        self._claimed: set[str] = set()

    def close(self) -> None:
        """Give the connections back that the marks were made on."""
        self._marks.close()

    def give_back(self) -> None:
        """What was claimed and not tried waits again; what was on a socket, without an answer kept, is in doubt."""
        ids = list(self._claimed)
        with self._engine.begin() as connection:
            connection.execute(_GIVE_BACK, {"dead": self._run_id, "ids": ids})
            connection.execute(_DOUBT, {"dead": self._run_id, "ids": ids})
        self._claimed.clear()

    def _execute(self, statement: Any, **parameters: object) -> None:  # noqa: ANN401 -- text() or a construct
        with self._engine.begin() as connection:
            connection.execute(statement, parameters)

    def reclaim_from_the_dead(self, has_ended: Callable[[str], bool]) -> None:
        """Free what dead runs had claimed: never tried, so it waits again; what they were sending is in doubt.

        A run is dead when the orchestrator knows that it has ended, or when its lease has lapsed.
        """
        with self._engine.begin() as connection:
            for owner, lapsed in connection.execute(_DEAD, {"run_id": self._run_id}).all():
                if lapsed or has_ended(owner):
                    connection.execute(_GIVE_BACK, {"dead": owner, "ids": None})
                    connection.execute(_DOUBT, {"dead": owner, "ids": None})

    def _claimable(self, *, resend: bool, max_attempts: int) -> Any:  # noqa: ANN401 -- an SQL expression
        in_doubt = and_(notices.c.state == State.UNKNOWN, notices.c.attempts < max_attempts)
        return or_(notices.c.state.in_(WAITING), in_doubt) if resend else notices.c.state.in_(WAITING)

    def waiting(self, tier: str, *, since: datetime, resend: bool, max_attempts: int) -> list[str]:
        """Ids of the notices of this tier that may be claimed, of any day, planned since ``since``, oldest first."""
        query = (
            select(notices.c.notice_id)
            .where(notices.c.mode == self._mode, notices.c.tier == tier, notices.c.planned_at >= since)
            .where(self._claimable(resend=resend, max_attempts=max_attempts))
            .order_by(notices.c.planned_at, notices.c.notice_id)
        )
        with self._engine.connect() as connection:
            return [str(notice_id) for notice_id in connection.scalars(query)]

    def claim(self, ids: Collection[str], *, resend: bool, max_attempts: int) -> list[Notice]:
        """Reserve those of these notices that still wait and that nobody else is claiming at this moment."""
        with self._engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": self._claim_lock})
            free = (
                select(notices.c.notice_id)
                .where(notices.c.notice_id == func.any(list(ids)))
                .where(self._claimable(resend=resend, max_attempts=max_attempts))
                .with_for_update(skip_locked=True)
                .cte("free")
            )
            claimed = connection.execute(
                update(notices)
                .where(notices.c.notice_id == free.c.notice_id)
                .values(state=State.CLAIMED, claimed_by=self._run_id, claimed_from=notices.c.state)
                .returning(*(notices.c[name] for name in _CLAIMED))
            ).all()
            self._claimed.update(row[0] for row in claimed)
            return _with_tokens(connection, claimed)

    def record_and_mark(self, record: Record | None, notice_id: str, now: datetime) -> bool:
        """Keep the previous message's outcome, and say that this one goes to the socket now, in one commit.

        Returns:
            False if the claim is no longer ours: somebody held us for dead. Then do not send.
        """
        values: dict[str, Value] = {"notice_id": notice_id, "run_id": self._run_id, "now": now}
        statement = _MARK_ONLY
        if record is not None:
            values |= self._recorded(record)
            statement = _RECORD_AND_MARK
        return bool(self._marks.count(statement, values))

    def record(self, record: Record) -> None:
        """Keep an outcome."""
        self._marks.count(_RECORD_ONLY, self._recorded(record) | {"run_id": self._run_id})

    def _recorded(self, record: Record) -> dict[str, Value]:
        self._claimed.discard(record.notice_id)
        outcome = record.outcome
        return {
            "recorded_id": record.notice_id,
            "at": record.at,
            "state": str(outcome.state),
            "stage": str(outcome.stage),
            "code": outcome.code,
            "enhanced": outcome.enhanced,
            "reply": outcome.reply,
            "queue_id": outcome.queue_id,
            "address_hash": record.address_hash,
        }

    def unmark(self, notice_id: str) -> None:
        """The message that was marked never reached the final dot: it is only claimed again, and the try is undone."""
        mine = (
            notices.c.notice_id == notice_id,
            notices.c.state == State.SENDING,
            notices.c.claimed_by == self._run_id,
        )
        self._execute(update(notices).where(*mine).values(state=State.CLAIMED, attempts=notices.c.attempts - 1))

    def reopen(self, notice_ids: Collection[str]) -> None:
        """What was refused for good is put off instead: the relay refused so many that the fault is not theirs."""
        refused = (notices.c.notice_id == func.any(list(notice_ids)), notices.c.state == State.FAILED)
        self._execute(update(notices).where(*refused).values(state=State.DEFERRED))

    def skip(self, notice: Notice, reason: Reason) -> None:
        """Nothing is left to say in this notice. One in doubt stays so: it may have been delivered."""
        state = State.UNKNOWN if notice.claimed_from is State.UNKNOWN else State.SKIPPED
        skipped = {"state": state, "reason": reason, "claimed_by": None, "claimed_from": None}
        mine = notices.c.notice_id == notice.notice_id
        # In one transaction: skipped without its tokens freed, a notice would use them up for ever.
        with self._engine.begin() as connection:
            self._drop(connection, notice, dict.fromkeys((token.token_id for token in notice.tokens), reason))
            connection.execute(update(notices).where(mine, notices.c.claimed_by == self._run_id).values(skipped))
        self._claimed.discard(notice.notice_id)

    def drop(self, notice: Notice, reasons: dict[str, Reason]) -> None:
        """Take tokens out of a notice, each for a reason, so that they can be planned again."""
        with self._engine.begin() as connection:
            self._drop(connection, notice, reasons)

    def _drop(self, connection: Connection, notice: Notice, reasons: dict[str, Reason]) -> None:
        """Free tokens of a notice, if it is still ours: another run may have sent it since we were held for dead."""
        if notice.claimed_from is State.UNKNOWN:
            return
        mine = select(notices.c.notice_id).where(
            notices.c.notice_id == notice.notice_id, notices.c.claimed_by == self._run_id
        )
        if connection.execute(mine.with_for_update()).first() is None:
            return
        for token_id, reason in reasons.items():
            line = (notice_tokens.c.notice_id == notice.notice_id, notice_tokens.c.token_id == token_id)
            connection.execute(update(notice_tokens).where(*line).values(released=True, reason=reason))


def _with_tokens(connection: Connection, claimed: Collection[Any]) -> list[Notice]:
    """The notices of rows of _CLAIMED, with their tokens."""
    lines = notice_tokens.c
    query = (
        select(lines.notice_id, lines.token_id, lines.expires_at, lines.threshold, lines.tier)
        .where(lines.notice_id == func.any([row[0] for row in claimed]), ~lines.released)
        .order_by(lines.expires_at, lines.token_id)
    )
    tokens: dict[str, list[DueToken]] = {row[0]: [] for row in claimed}
    for notice_id, token_id, expires_at, threshold, tier in connection.execute(query):
        due = DueToken(token_id=token_id, expires_at=expires_at, threshold=threshold, tier=tier)
        tokens[notice_id].append(due)
    return [
        Notice(
            notice_id=notice_id,
            recipient_id=recipient_id,
            tier=tier,
            message_id=message_id,
            claimed_from=State(claimed_from),
            attempts=attempts,
            first_tried_at=first_tried_at if claimed_from == State.UNKNOWN else None,
            tokens=tuple(tokens[notice_id]),
        )
        for notice_id, recipient_id, tier, message_id, claimed_from, attempts, first_tried_at in claimed
    ]
