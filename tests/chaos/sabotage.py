"""Breaks the product on purpose, inside the worker: each of these must make the verdict fail.

Run one with ``make chaos ARGS="--sabotage mark-after-sending"``.
"""

import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import update
from token_pipelines.smtp.transport import Connection

from token_pipelines.delivery import tier as delivery
from token_pipelines.envelope import Envelope
from token_pipelines.ledger import sending
from token_pipelines.ledger.sending import Record, Sending
from token_pipelines.ledger.tables import notices
from token_pipelines.model import Notice, Outcome, Stage, State

_HELD_BY_US: Final = re.compile(rb"AND state = 'claimed' AND claimed_by = (\$\d+)")


def _put(owner: object, name: str, what: object) -> None:
    setattr(owner, name, what)


def _mark_after_sending() -> None:
    """As crates.io does it: send, then mark. A kill in between forgets the message."""

    def record_and_mark(self: Sending, record: Record | None, _notice_id: str, _now: datetime) -> bool:
        if record is not None:
            self.record(record)
        return True

    _put(Sending, "record_and_mark", record_and_mark)


def _outcome_as(state: State) -> None:
    send = Connection.send

    def certain(self: Connection, envelope: Envelope) -> Outcome:
        outcome = send(self, envelope)
        return replace(outcome, state=state) if outcome.state is State.UNKNOWN else outcome

    _put(Connection, "send", certain)


def _drop_is_not_sent() -> None:
    """A connection lost after the final dot is taken for "not delivered"."""
    _outcome_as(State.DEFERRED)


def _drop_is_failed() -> None:
    """A connection lost after the final dot is taken for a refusal."""
    _outcome_as(State.FAILED)


def _sent_before_the_answer() -> None:
    """As GitLab does it: counted as sent once it is handed over."""
    mark = Sending.record_and_mark

    def record_and_mark(self: Sending, record: Record | None, notice_id: str, now: datetime) -> bool:
        mine = mark(self, record, notice_id, now)
        if mine:
            early = Outcome(state=State.SENT, stage=Stage.DOT)
            self.record(Record(notice_id=notice_id, outcome=early, at=now, address_hash=b""))
        return mine

    _put(Sending, "record_and_mark", record_and_mark)


def _ignore_claims() -> None:
    """Whatever has not been sent may be claimed and marked, whoever has it."""
    open_states = [state for state in State if state not in {State.SENT, State.FAILED, State.WITHDRAWN, State.SKIPPED}]
    taken = (State.CLAIMED, State.SENDING)
    claim = Sending.claim

    def claimable(_self: Sending, **_options: object) -> Any:  # noqa: ANN401 -- an SQL expression
        return notices.c.state.in_(open_states)

    def claim_anything(self: Sending, ids: Any, **options: Any) -> list[Notice]:  # noqa: ANN401 -- passed on
        claimed = claim(self, ids, **options)
        # The table's constraints know that nothing is claimed from a claim, and would stop us here.
        from_plan = update(notices).where(notices.c.claimed_from.in_(taken)).values(claimed_from=State.PLANNED)
        self._execute(from_plan)
        return claimed

    _put(Sending, "_claimable", claimable)
    _put(Sending, "claim", claim_anything)
    for name in ("_MARK_ONLY", "_RECORD_AND_MARK"):
        statement = getattr(sending, name)
        # The parameter stays, or the database could not tell its type.
        careless = _HELD_BY_US.sub(rb"AND CAST(\1 AS text) <> ''", statement.text)
        _put(sending, name, replace(statement, text=careless))


def _new_message_id() -> None:
    """Every try has a Message-ID of its own, so that no mail program can tell the copies."""
    write = delivery._Sender._write  # noqa: SLF001 -- it is sabotage

    def rewritten(self: Any, letter: Any, *rest: Any) -> Any:  # noqa: ANN401 -- passed on
        fresh = replace(letter.notice, message_id=f"<{uuid.uuid4()}@example.org>")
        return write(self, replace(letter, notice=fresh), *rest)

    _put(delivery._Sender, "_write", rewritten)  # noqa: SLF001 -- it is sabotage


SABOTAGES: dict[str, Callable[[], None]] = {
    "mark-after-sending": _mark_after_sending,
    "drop-is-not-sent": _drop_is_not_sent,
    "drop-is-failed": _drop_is_failed,
    "sent-before-the-answer": _sent_before_the_answer,
    "ignore-claims": _ignore_claims,
    "new-message-id": _new_message_id,
}


def apply(name: str | None) -> None:
    """Break what ``name`` says; nothing for None."""
    if name is not None:
        SABOTAGES[name]()
