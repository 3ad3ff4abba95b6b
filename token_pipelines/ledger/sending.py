"""Sending in the ledger: claim, settle, skip, give back. `model.State` has the states and their order."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Engine, Text, and_, func, or_, select, text, update

from token_pipelines.ledger.claiming import claim
from token_pipelines.ledger.heartbeat import LEASE
from token_pipelines.ledger.refusals import RefusedBefore, refused_before
from token_pipelines.ledger.settlement import Record, Settlement
from token_pipelines.ledger.tables import attempts, notice_tokens, notices
from token_pipelines.model import WAITING, Mode, Notice, Reason, State

_DEAD: Final = text(f"""
SELECT owner.claimed_by, run.run_id IS NULL OR run.ended_at IS NOT NULL
    OR run.heartbeat_at < clock_timestamp() - interval '{LEASE}'
FROM (SELECT DISTINCT claimed_by FROM token_pipelines.notices
      WHERE state IN ('claimed', 'sending') AND claimed_by <> :run_id) AS owner
LEFT JOIN token_pipelines.runs AS run ON run.run_id = owner.claimed_by
""")  # noqa: S608 -- constants only
_DOUBT: Final = text("""
WITH doubted AS (
    UPDATE token_pipelines.notices SET state = 'unknown', claimed_by = NULL, claimed_from = NULL
    WHERE state = 'sending' AND claimed_by = :dead AND (CAST(:ids AS uuid[]) IS NULL OR notice_id = ANY(:ids))
    RETURNING notice_id
)
INSERT INTO token_pipelines.attempts (notice_id, at, run_id, state, reply)
SELECT notice_id, clock_timestamp(), :dead, 'unknown', 'the sending process ended before an answer came' FROM doubted
""")
_NEVER_SAID: Final = text("""
UPDATE token_pipelines.notices SET state = 'claimed', attempts = attempts - 1
WHERE state = 'sending' AND claimed_by = :dead AND notice_id = ANY(CAST(:ids AS uuid[]))
""")
_GIVE_BACK: Final = text("""
UPDATE token_pipelines.notices SET state = claimed_from, claimed_by = NULL, claimed_from = NULL
WHERE state = 'claimed' AND claimed_by = :dead AND (CAST(:ids AS uuid[]) IS NULL OR notice_id = ANY(:ids))
""")


class Sending:
    """The ledger while one run sends. One thread may call `settle` while another calls `claim`, `skip` and `drop`."""

    def __init__(self, engine: Engine, *, run_id: str, mode: Mode, claim_lock: int) -> None:
        """Send for the run ``run_id``."""
        self._engine = engine
        self._run_id = run_id
        self._mode = mode
        self._settlement = Settlement(engine, run_id)
        self._claim_lock = claim_lock
        self._claimed: set[str] = set()
        self._never_said: set[str] = set()  # their mark's commit raised an error, but may have succeeded

    def close(self) -> None:
        """Close the connection for group commits."""
        self._settlement.close()

    def give_back(self) -> None:
        """Release what was claimed and not tried: it waits again. What was marked and has no outcome is in doubt."""
        ids = list(self._claimed)
        with self._engine.begin() as connection:
            connection.execute(_NEVER_SAID, {"dead": self._run_id, "ids": list(self._never_said)})
            connection.execute(_GIVE_BACK, {"dead": self._run_id, "ids": ids})
            connection.execute(_DOUBT, {"dead": self._run_id, "ids": ids})
        self._claimed.clear()

    def _execute(self, statement: Any, **parameters: object) -> None:  # noqa: ANN401 -- text() or a construct
        with self._engine.begin() as connection:
            connection.execute(statement, parameters)

    def reclaim_from_the_dead(self, has_ended: Callable[[str], bool]) -> None:
        """Release the claims of dead runs, whose notices wait again. Notices that they were sending are in doubt.

        A run is dead if ``has_ended`` says so, or if its lease has expired.
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
        """Ids of notices of this tier that may be claimed: of any day, planned at ``since`` or later, in a fair order.

        Those that were tried least come first, so nobody waits twice behind somebody else who is tried in vain. Among
        equals the order is another one in each run.
        """
        tries = (
            select(func.count()).where(attempts.c.notice_id == notices.c.notice_id).correlate(notices).scalar_subquery()
        )
        query = (
            select(notices.c.notice_id)
            .where(notices.c.mode == self._mode, notices.c.tier == tier, notices.c.planned_at >= since)
            .where(self._claimable(resend=resend, max_attempts=max_attempts))
            .order_by(tries, func.md5(notices.c.notice_id.cast(Text).concat(self._run_id)), notices.c.notice_id)
        )
        with self._engine.connect() as connection:
            return [str(notice_id) for notice_id in connection.scalars(query)]

    def claim(self, ids: Collection[str], *, resend: bool, max_attempts: int) -> list[Notice]:
        """Reserve the notices among ``ids`` that still wait and that no other run is claiming now. Keeps the order."""
        claimed = claim(
            self._engine, ids, run_id=self._run_id, lock=self._claim_lock, resend=resend, max_attempts=max_attempts
        )
        self._claimed.update(notice.notice_id for notice in claimed)
        return claimed

    def settle(self, records: Sequence[Record], marks: Mapping[str, datetime]) -> set[str]:
        """Record outcomes, and mark the notices that are sent next, in one commit: see `Settlement.settle`."""
        try:
            marked = self._settlement.settle(records, marks)
        except BaseException:
            self._never_said.update(marks)
            raise
        self._claimed.difference_update(record.notice_id for record in records)
        return marked

    def settle_again(self, records: Sequence[Record]) -> None:
        """Record outcomes again after a `settle` that failed: see `Settlement.settle_again`."""
        self._settlement.settle_again(records)
        self._claimed.difference_update(record.notice_id for record in records)

    def refused_before(self, notice_ids: Collection[str], *, zone: str) -> dict[str, RefusedBefore]:
        """What the ledger knows of the addresses of these notices: see `refusals.refused_before`."""
        return refused_before(self._engine, notice_ids, zone=zone)

    def fail(self, notice_ids: Collection[str]) -> None:
        """The refusals of these notices are believed. A notice that another run has claimed since is left to it."""
        refused = (notices.c.notice_id == func.any(list(notice_ids)), notices.c.state == State.DEFERRED)
        self._execute(update(notices).where(*refused).values(state=State.FAILED))

    def skip(self, notice: Notice, reason: Reason) -> None:
        """Skip a notice in which no token is left. A notice in doubt stays in doubt: it may have been delivered."""
        state = State.UNKNOWN if notice.claimed_from is State.UNKNOWN else State.SKIPPED
        skipped = {"state": state, "reason": reason, "claimed_by": None, "claimed_from": None}
        mine = notices.c.notice_id == notice.notice_id
        # In one transaction: the tokens of a skipped notice must be released, or they never become due again.
        with self._engine.begin() as connection:
            self._drop(connection, notice, dict.fromkeys((token.token_id for token in notice.tokens), reason))
            connection.execute(update(notices).where(mine, notices.c.claimed_by == self._run_id).values(skipped))
        self._claimed.discard(notice.notice_id)

    def drop(self, notice: Notice, reasons: dict[str, Reason]) -> None:
        """Take tokens out of a notice, each for a reason, so that they can be planned again."""
        with self._engine.begin() as connection:
            self._drop(connection, notice, reasons)

    def _drop(self, connection: Connection, notice: Notice, reasons: dict[str, Reason]) -> None:
        """Release tokens if the notice is still ours. A run that presumed this one dead may have sent it."""
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
