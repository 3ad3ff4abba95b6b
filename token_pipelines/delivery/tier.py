"""Use case 2: claim what waits, read it again, write each email, send it, record what became of it.

The order of a message's life is the order of this file. One notice's trouble never stops the next; trouble of the
relay, the source or the ledger stops the tier, and what was not sent waits.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from token_pipelines.delivery.counts import TierCounts, TierReport
from token_pipelines.delivery.on_sent import OnSentRunner
from token_pipelines.delivery.resolving import ResolvedNotice, resolve
from token_pipelines.delivery.workers import WorkerPool
from token_pipelines.envelope import Envelope
from token_pipelines.errors import RelayError, whereabouts
from token_pipelines.ledger.on_sent import SentNotice
from token_pipelines.ledger.sending import Record, Sending
from token_pipelines.model import Notice, Outcome, Stage, State
from token_pipelines.pipeline import Pipeline
from token_pipelines.smtp.transport import Connection, RecipientInTroubleError

log = logging.getLogger(__name__)

WRITTEN_AT_ONCE: Final = 32
"""Emails that a sender writes before it sends them: one by one, between two waits, each takes half as long again."""

READ_AGAIN_AFTER: Final = timedelta(minutes=1)
"""Where sending is slow, what was read of a batch gets old: a token may be revoked by the time its turn comes."""

WRITTEN_AGAIN_AFTER: Final = timedelta(seconds=10)
"""The same of an email, which says how much time is left."""

UNRECORDED_AT_MOST_S: Final = 0.2
"""An outcome waits for the next mark, to be kept in one commit with it; for a longer wait it is written down before."""


def send_tier(
    pipeline: Pipeline,
    tier: str,
    *,
    run_id: str,
    report: TierReport,
    has_ended: Callable[[str], bool],
    on_progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Send whatever of this tier waits, of any day, over as many connections as the config asks for.

    Args:
        pipeline: the pipeline.
        tier: the tier's name.
        run_id: who sends; what it claims belongs to it.
        report: filled with the tier's numbers, also when this raises or is interrupted.
        has_ended: whether the orchestrator knows that another run has ended.
        on_progress: told after each message how many are done.

    Raises:
        TokenPipelinesError: what stopped the tier: trouble of the relay's, the source's or the ledger's.
    """
    delivery = pipeline.config.delivery
    durable = delivery.on_unknown == "hold"
    with pipeline.ledger.sending(run_id=run_id, mode=delivery.mode, durable=durable, has_ended=has_ended) as sending:
        waiting = _waiting(pipeline, sending, tier)
        tally = TierCounts(report, size=len(waiting), on_progress=on_progress)
        writing_back = OnSentRunner(pipeline, report)
        crew = WorkerPool(pipeline.config.smtp, lambda crew: _Sender(pipeline, sending, crew, tally, writing_back))
        try:
            crew.send_all(waiting)
            for pause in delivery.retry_pauses:
                if (put_off := tally.take_put_off()) and not crew.stopped.wait(pause.total_seconds()):
                    crew.send_all(put_off)
        finally:
            _settle_refusals(pipeline, sending, tally)
            sending.give_back()
            tally.close(waiting=set(_waiting(pipeline, sending, tier)))
        writing_back.catch_up()
    crew.raise_trouble()


def _waiting(pipeline: Pipeline, sending: Sending, tier: str) -> list[str]:
    delivery = pipeline.config.delivery
    since = pipeline.leftovers_since(pipeline.clock())
    return sending.waiting(
        tier, since=since, resend=delivery.on_unknown == "resend", max_attempts=delivery.max_attempts
    )


def _settle_refusals(pipeline: Pipeline, sending: Sending, tally: TierCounts) -> None:
    """Suppress the addresses that the relay says do not exist; if it said so of too many, believe none of it."""
    for record in tally.believed:
        if record.outcome.address_is_dead:
            cause = f"the relay refused it: {record.outcome.enhanced}"
            pipeline.ledger.suppressions.add([record.address_hash], at=record.at, cause=cause)
    sending.reopen(tally.take_back_refusals())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Email:
    """A letter as of the instant ``at``, and when it was written; ``fault`` tells why it could not be."""

    at: datetime
    written_at: datetime
    envelope: Envelope | None
    fault: str = ""


class _Sender:
    """One thread's connection, and the outcome it has not yet written down."""

    def __init__(
        self, pipeline: Pipeline, sending: Sending, crew: WorkerPool, tally: TierCounts, writing_back: OnSentRunner
    ) -> None:
        self._pipeline = pipeline
        self._sending = sending
        self._crew = crew
        self._tally = tally
        self._writing_back = writing_back
        self._connection: Connection | None = None
        self._troubles = 0  # of the relay's, since it last took a message of ours
        self._has_turn = False
        self._unrecorded: Record | None = None
        self._sent: list[SentNotice] = []

    def connect(self) -> None:
        """Have a connection.

        Raises:
            RelayError: the relay gives us none.
        """
        if self._connection is None:
            self._connection = self._pipeline.relay.connect()

    def send_batch(self, notice_ids: list[str]) -> None:
        """Claim a batch, read its tokens again, and deliver notice by notice."""
        delivery = self._pipeline.config.delivery
        self._sent = []
        claimed = self._sending.claim(
            notice_ids, resend=delivery.on_unknown == "resend", max_attempts=delivery.max_attempts
        )
        try:
            while claimed and not self._crew.stopped.is_set():
                claimed = claimed[self._deliver_while_fresh(claimed) :]
        finally:
            self._write_down()
            self._writing_back.after(self._sent)

    def _deliver_while_fresh(self, notices: Sequence[Notice]) -> int:
        """Deliver these for as long as what is read of their tokens is the present; how many that were."""
        letters = resolve(self._pipeline, notices, self._pipeline.clock())
        read_at = self._pipeline.clock()  # not before: however slow the source is, each read must lead to a message
        for start in range(0, len(letters), WRITTEN_AT_ONCE):
            written = [(letter, self._write(letter)) for letter in letters[start : start + WRITTEN_AT_ONCE]]
            then = [*(email for _, email in written[1:]), None]
            for done, ((letter, email), next_email) in enumerate(zip(written, then, strict=True), start):
                if email is not None and not self._await_turn():
                    return done
                now = self._pipeline.clock()
                if now - read_at > READ_AGAIN_AFTER:
                    return done
                is_old = email is not None and now - email.written_at > WRITTEN_AGAIN_AFTER
                self._deliver(letter, self._write(letter) if is_old else email, next_email)
                if self._crew.stopped.is_set():
                    return done + 1
        return len(letters)

    def _write(self, letter: ResolvedNotice) -> _Email | None:
        """The email, if there is anything to say; without an envelope when it could not be written."""
        if letter.recipient is None:
            return None
        now = self._pipeline.clock()
        # One in doubt is written as of its first try, which is what the mark keeps: both copies are the same bytes.
        at = letter.notice.first_tried_at or now
        try:
            content = self._pipeline.renderer.render(letter.recipient, letter.tokens, now=at)
            envelope = self._pipeline.serialiser.envelope(
                content, letter.recipient, message_id=letter.notice.message_id, at=at
            )
        except Exception as error:  # noqa: BLE001 -- one letter that cannot be written must not stop the next
            log.error("Notice %s could not be written: %s", letter.notice.notice_id, whereabouts(error))  # noqa: TRY400 -- as above
            fault = f"the email could not be written ({whereabouts(error)})"
            return _Email(at=at, written_at=now, envelope=None, fault=fault)
        return _Email(at=at, written_at=now, envelope=envelope)

    def _await_turn(self) -> bool:
        """Wait for a place in the rate, before anything is marked; False when the crew stops meanwhile."""
        if not self._has_turn:
            seconds = self._pipeline.relay.rate.take()
            if seconds > UNRECORDED_AT_MOST_S:
                self._write_down()
            if seconds and self._crew.stopped.wait(seconds):
                return False
            self._has_turn = True
        return not self._crew.stopped.is_set()

    def _deliver(self, letter: ResolvedNotice, email: _Email | None, next_email: _Email | None) -> None:
        notice = letter.notice
        if email is None:
            self._sending.skip(notice, letter.reason)
            self._tally.skip(notice.notice_id, letter.reason)
            return
        if letter.dropped:
            self._sending.drop(notice, letter.dropped)
        if email.envelope is None:
            self._keep(letter, Outcome(state=State.DEFERRED, stage=Stage.CONNECT, reply=email.fault))
            return
        following = self._following(next_email)
        outcome = self._send(notice, email.envelope, email.at, following)
        if outcome is not None:
            self._keep(letter, outcome)

    def _following(self, email: _Email | None) -> Envelope | None:
        """The message that the relay may hear of while it takes this one; its turn must have come."""
        self._has_turn = False
        if email is None or email.envelope is None or self._crew.stopped.is_set():
            return None
        self._has_turn = self._pipeline.relay.rate.take_at_once()
        return email.envelope if self._has_turn else None

    def _send(self, notice: Notice, envelope: Envelope, at: datetime, following: Envelope | None) -> Outcome | None:
        """Mark, then send; a relay in trouble gets some pauses. None when another run has taken the notice over."""
        while True:
            mine = self._sending.record_and_mark(self._unrecorded, notice.notice_id, at)
            self._unrecorded = None  # not before: when the ledger is lost just now, it is written down again at the end
            if not mine:
                log.warning("Notice %s was taken over by another run; it is not sent here.", notice.notice_id)
                return None
            try:
                return self._connected().send(envelope, following=following)
            except RecipientInTroubleError as error:
                if not self._crew.breaker.trips(notice.notice_id, error):
                    return error.outcome  # perhaps only theirs: it is put off, and the next one tells
                trouble: RelayError = error
            except RelayError as error:
                trouble = error
            self._sending.unmark(notice.notice_id)  # nothing of it was delivered
            self._troubles += 1
            self._crew.pause_or_give_up(trouble, self._troubles)

    def _connected(self) -> Connection:
        assert self._connection is not None  # noqa: S101 -- `connect` comes first
        return self._connection

    def _keep(self, letter: ResolvedNotice, outcome: Outcome) -> None:
        self._write_down()
        if letter.notice.claimed_from is State.UNKNOWN and outcome.state is not State.SENT:
            outcome = replace(outcome, state=State.UNKNOWN)  # the first copy may have been delivered
        record = Record(
            notice_id=letter.notice.notice_id,
            outcome=outcome,
            at=self._pipeline.clock(),
            address_hash=letter.address_hash,
        )
        self._unrecorded = record
        if outcome.state is State.SENT:
            self._troubles = 0
            self._crew.breaker.accepted()
            token_ids = tuple(token.token_id for token in letter.tokens)
            self._sent.append(SentNotice(notice_id=record.notice_id, token_ids=token_ids, sent_at=record.at))
        self._tally.keep(record)

    def _write_down(self) -> None:
        if self._unrecorded is not None:
            self._sending.record(self._unrecorded)
            self._unrecorded = None

    def close(self) -> None:
        """Say goodbye to the relay."""
        if self._connection is not None:
            self._connection.close()
