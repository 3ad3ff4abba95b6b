"""Breaks the product on purpose, inside the worker: each of these must make the verdict fail.

Run one with ``make chaos ARGS="--sabotage mark-after-sending"``.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import update

from token_pipelines.channel import Channel
from token_pipelines.delivery.emails import Email
from token_pipelines.delivery.recording import Recorder
from token_pipelines.envelope import Envelope
from token_pipelines.ledger import claiming, settlement
from token_pipelines.ledger.sending import Sending
from token_pipelines.ledger.settlement import Record
from token_pipelines.ledger.tables import notices
from token_pipelines.model import Notice, Outcome, Stage, State

_HELD_BY_US: Final = "AND n.state = 'claimed' AND n.claimed_by = %(run)s"


def _put(owner: object, name: str, what: object) -> None:
    setattr(owner, name, what)


def _mark_after_sending() -> None:
    """As crates.io does it: send, then mark. A kill in between forgets the message."""
    settle = Sending.settle

    def settle_records(self: Sending, records: Sequence[Record], marks: Mapping[str, datetime]) -> set[str]:
        settle(self, records, {})
        return set(marks)

    _put(Sending, "settle", settle_records)


def _outcome_as(state: State) -> None:
    keep = Recorder.keep

    def certain(self: Recorder, email: Email, outcome: Outcome) -> Record:
        return keep(self, email, replace(outcome, state=state) if outcome.state is State.UNKNOWN else outcome)

    _put(Recorder, "keep", certain)


def _drop_is_not_sent() -> None:
    """A connection lost after the final dot is taken for "not delivered"."""
    _outcome_as(State.DEFERRED)


def _drop_is_failed() -> None:
    """A connection lost after the final dot is taken for a refusal."""
    _outcome_as(State.FAILED)


def _sent_before_the_answer() -> None:
    """As GitLab does it: counted as sent once it is handed over."""
    settle = Sending.settle

    def settle_early(self: Sending, records: Sequence[Record], marks: Mapping[str, datetime]) -> set[str]:
        mine = settle(self, records, marks)
        early = Outcome(state=State.SENT, stage=Stage.DOT)
        sent = [Record(notice_id=one, outcome=early, at=marks[one], address_hash=b"") for one in mine]
        settle(self, sent, {})
        return mine

    _put(Sending, "settle", settle_early)


def _ignore_claims() -> None:
    """Every notice that was not sent may be claimed and marked, even if another run holds it."""
    open_states = [state for state in State if state not in {State.SENT, State.FAILED, State.WITHDRAWN, State.SKIPPED}]
    listed = ", ".join(f"'{state}'" for state in open_states)
    taken = (State.CLAIMED, State.SENDING)
    claim = Sending.claim

    def claimable(_self: Sending, **_options: object) -> Any:  # noqa: ANN401 -- an SQL expression
        return notices.c.state.in_(open_states)

    def claim_anything(self: Sending, ids: Any, **options: Any) -> list[Notice]:  # noqa: ANN401 -- passed on
        claimed = claim(self, ids, **options)
        # The table's constraints know that nothing is claimed from a claim, and would stop us here.
        self._execute(update(notices).where(notices.c.claimed_from.in_(taken)).values(claimed_from=State.PLANNED))
        return claimed

    careful = claiming._MAY_BE_CLAIMED  # noqa: SLF001 -- it is sabotage
    # The parameters stay, or psycopg would miss them.
    careless = f"(state IN ({listed}) OR (%(resend)s AND attempts < %(max_attempts)s AND false))"
    _put(claiming, "_CLAIM", _replaced(claiming._CLAIM, careful, careless))  # noqa: SLF001 -- as above
    _put(settlement, "_SETTLE", _replaced(settlement._SETTLE, _HELD_BY_US, ""))  # noqa: SLF001 -- as above
    _put(Sending, "_claimable", claimable)
    _put(Sending, "claim", claim_anything)


def _replaced(statement: str, careful: str, careless: str) -> str:
    if careful not in statement:
        msg = f"{careful} is no longer in the statement: this sabotage breaks nothing"
        raise AssertionError(msg)
    return statement.replace(careful, careless)


def _new_message_id() -> None:
    """Every try has a Message-ID of its own, so that no mail program can tell the copies."""
    write = Channel.write

    def rewritten(self: Channel, *content: Any, message_id: str, at: datetime) -> Envelope:  # noqa: ANN401 -- passed on
        del message_id
        return write(self, *content, message_id=f"<{uuid.uuid4()}@example.org>", at=at)

    _put(Channel, "write", rewritten)


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
