"""Use case 2: claim what waits, read it again, write each email, send it, record what became of it.

The order of a message's life is the order of this file. One notice's trouble never stops the next; trouble of the
relay, the source or the ledger stops the tier, and what was not sent waits.
"""

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from token_pipelines.errors import RelayError, TokenPipelinesError, whereabouts
from token_pipelines.ledger.sending import Record, Sending
from token_pipelines.ledger.written_back import SentNotice
from token_pipelines.mail.message import Envelope
from token_pipelines.mail.senders import senders
from token_pipelines.mail.transport import Connection
from token_pipelines.model import Notice, Outcome, Stage, State
from token_pipelines.parts import Parts
from token_pipelines.planning import leftovers_since
from token_pipelines.resolving import Letter, resolve
from token_pipelines.tally import Tally, TierReport
from token_pipelines.writing_back import WritingBack

log = logging.getLogger(__name__)

CLAIM_SIZE: Final = 500
"""Notices claimed and read again at a time: large enough to be cheap, small enough that two runs share the work."""

WRITTEN_AT_ONCE: Final = 32
"""Emails that a sender writes before it sends them: one by one, between two waits, each takes half as long again."""


def send_tier(
    parts: Parts,
    tier: str,
    *,
    run_id: str,
    report: TierReport,
    has_ended: Callable[[str], bool],
    on_progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Send whatever of this tier waits, of any day, over as many connections as the config asks for.

    Args:
        parts: the pipeline.
        tier: the tier's name.
        run_id: who sends; what it claims belongs to it.
        report: filled with the tier's numbers, also when this raises or is interrupted.
        has_ended: whether the orchestrator knows that another run has ended.
        on_progress: told after each message how many are done.

    Raises:
        TokenPipelinesError: what stopped the tier: trouble of the relay's, the source's or the ledger's.
    """
    delivery = parts.config.delivery
    durable = delivery.on_unknown == "hold"
    with parts.ledger.sending(run_id=run_id, mode=delivery.mode, durable=durable, has_ended=has_ended) as sending:
        waiting = _waiting(parts, sending, tier)
        tally = Tally(report, size=len(waiting), on_progress=on_progress)
        writing_back = WritingBack(parts, report)
        crew = _Crew(parts, sending, tally, writing_back)
        try:
            crew.send_all(waiting)
            for pause in delivery.retry_pauses:
                if (put_off := tally.take_put_off()) and not crew.stopped.wait(pause.total_seconds()):
                    crew.send_all(put_off)
        finally:
            _settle_refusals(parts, sending, tally)
            sending.give_back()
            tally.close(waiting=set(_waiting(parts, sending, tier)))
        writing_back.catch_up()
    if crew.trouble is not None:
        raise crew.trouble


def _waiting(parts: Parts, sending: Sending, tier: str) -> list[str]:
    delivery = parts.config.delivery
    since = leftovers_since(parts, parts.clock())
    return sending.waiting(
        tier, since=since, resend=delivery.on_unknown == "resend", max_attempts=delivery.max_attempts
    )


def _settle_refusals(parts: Parts, sending: Sending, tally: Tally) -> None:
    """Suppress the addresses that the relay says do not exist; if it said so of too many, believe none of it."""
    for record in tally.believed:
        if record.outcome.address_is_dead:
            cause = f"the relay refused it: {record.outcome.enhanced}"
            parts.ledger.suppress(record.address_hash, at=record.at, cause=cause)
    sending.reopen(tally.take_back_refusals())


class _Crew:
    """The threads of one tier's run, one a connection. The first one in trouble stops all."""

    def __init__(self, parts: Parts, sending: Sending, tally: Tally, writing_back: WritingBack) -> None:
        self.parts = parts
        self.sending = sending
        self.tally = tally
        self.writing_back = writing_back
        self.stopped = threading.Event()
        self.trouble: TokenPipelinesError | None = None

    def send_all(self, notice_ids: list[str]) -> None:
        """Share the notices out among the threads, and wait for all of them."""
        threads = max(1, min(self.parts.config.smtp.connections, len(notice_ids)))
        size = max(1, min(CLAIM_SIZE, len(notice_ids) // threads))
        batches: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        for start in range(0, len(notice_ids), size):
            batches.put(notice_ids[start : start + size])
        with senders(threads) as pool:
            work = [pool.submit(self._work, batches) for _ in range(threads)]
            try:
                wait(work)
            except BaseException:  # a signal: finish what is on the sockets, begin nothing new
                self.stopped.set()
                raise

    def _work(self, batches: queue.SimpleQueue[list[str]]) -> None:
        sender = _Sender(self)
        try:
            while not self.stopped.is_set():
                sender.send_batch(batches.get_nowait())
        except queue.Empty:
            pass
        except TokenPipelinesError as error:
            self._stop(error)
        except Exception as error:  # noqa: BLE001 -- a thread's fault of ours must stop the tier, not vanish
            log.error("A sender ended by a fault of ours: %s", whereabouts(error))  # noqa: TRY400 -- a traceback may quote an address
            msg = f"Sending stopped by a fault of ours ({whereabouts(error)}); please report it."
            self._stop(TokenPipelinesError(msg))
        finally:
            sender.close()

    def _stop(self, error: TokenPipelinesError) -> None:
        self.trouble = self.trouble or error
        self.stopped.set()

    def wait_or_give_up(self, error: RelayError, troubles: int) -> None:
        """Pause after a relay's trouble that may pass; raise it when it has been too often, or will not pass."""
        pauses = self.parts.config.smtp.reconnect_pauses
        if not error.may_pass or troubles > len(pauses) or self.stopped.wait(pauses[troubles - 1].total_seconds()):
            raise error


@dataclass(frozen=True, kw_only=True, slots=True)
class _Email:
    """A letter as it was written at an instant; ``fault`` tells why it could not be."""

    at: datetime
    envelope: Envelope | None
    fault: str = ""


class _Sender:
    """One thread's connection, and the outcome it has not yet written down."""

    def __init__(self, crew: _Crew) -> None:
        self._crew = crew
        self._parts = crew.parts
        self._sending = crew.sending
        self._connection: Connection | None = None
        self._unrecorded: Record | None = None
        self._sent: list[SentNotice] = []

    def send_batch(self, notice_ids: list[str]) -> None:
        """Claim a batch, read its tokens again, and deliver notice by notice."""
        delivery = self._parts.config.delivery
        self._sent = []
        claimed = self._sending.claim(
            notice_ids, resend=delivery.on_unknown == "resend", max_attempts=delivery.max_attempts
        )
        try:
            letters = resolve(self._parts, claimed, self._parts.clock())
            for start in range(0, len(letters), WRITTEN_AT_ONCE):
                written = [(letter, self._write(letter)) for letter in letters[start : start + WRITTEN_AT_ONCE]]
                for letter, email in written:
                    if self._crew.stopped.is_set():
                        return
                    self._deliver(letter, email)
        finally:
            self._write_down()
            self._crew.writing_back.after(self._sent)

    def _write(self, letter: Letter) -> _Email | None:
        """The email, if there is anything to say; without an envelope when it could not be written."""
        if letter.recipient is None:
            return None
        # One in doubt is written as of its first try, which is what the mark keeps: both copies are the same bytes.
        at = letter.notice.first_tried_at or self._parts.clock()
        try:
            content = self._parts.renderer.render(letter.recipient, letter.tokens, now=at)
            envelope = self._parts.serialiser.envelope(
                content, letter.recipient, message_id=letter.notice.message_id, at=at
            )
        except Exception as error:  # noqa: BLE001 -- one letter that cannot be written must not stop the next
            log.error("Notice %s could not be written: %s", letter.notice.notice_id, whereabouts(error))  # noqa: TRY400 -- as above
            return _Email(at=at, envelope=None, fault=f"the email could not be written ({whereabouts(error)})")
        return _Email(at=at, envelope=envelope)

    def _deliver(self, letter: Letter, email: _Email | None) -> None:
        notice = letter.notice
        if email is None:
            self._sending.skip(notice, letter.reason)
            self._crew.tally.skip(notice.notice_id, letter.reason)
            return
        if letter.dropped:
            self._sending.drop(notice, letter.dropped)
        if email.envelope is None:
            self._keep(letter, Outcome(state=State.DEFERRED, stage=Stage.CONNECT, reply=email.fault))
            return
        outcome = self._send(notice, email.envelope, email.at)
        if outcome is not None:
            self._keep(letter, outcome)

    def _send(self, notice: Notice, envelope: Envelope, at: datetime) -> Outcome | None:
        """Mark, then send; a relay in trouble gets some pauses. None when another run has taken the notice over."""
        troubles = 0
        while True:
            try:
                if self._connection is None:
                    self._connection = self._parts.relay.connect()
            except RelayError as error:
                troubles += 1
                self._crew.wait_or_give_up(error, troubles)
                continue
            mine = self._sending.record_and_mark(self._unrecorded, notice.notice_id, at)
            self._unrecorded = None  # not before: when the ledger is lost just now, it is written down again at the end
            if not mine:
                log.warning("Notice %s was taken over by another run; it is not sent here.", notice.notice_id)
                return None
            try:
                return self._connection.send(envelope)
            except RelayError as error:  # nothing of it was delivered
                self._sending.unmark(notice.notice_id)
                troubles += 1
                self._crew.wait_or_give_up(error, troubles)

    def _keep(self, letter: Letter, outcome: Outcome) -> None:
        self._write_down()
        if letter.notice.claimed_from is State.UNKNOWN and outcome.state is not State.SENT:
            outcome = replace(outcome, state=State.UNKNOWN)  # the first copy may have been delivered
        record = Record(
            notice_id=letter.notice.notice_id,
            outcome=outcome,
            at=self._parts.clock(),
            address_hash=letter.address_hash,
        )
        self._unrecorded = record
        if outcome.state is State.SENT:
            token_ids = tuple(token.token_id for token in letter.tokens)
            self._sent.append(SentNotice(notice_id=record.notice_id, token_ids=token_ids, sent_at=record.at))
        self._crew.tally.keep(record)

    def _write_down(self) -> None:
        if self._unrecorded is not None:
            self._sending.record(self._unrecorded)
            self._unrecorded = None

    def close(self) -> None:
        """Say goodbye to the relay."""
        if self._connection is not None:
            self._connection.close()
