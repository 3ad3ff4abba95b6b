"""Use case 2: claim what waits, read it again, write each email, send it, record what became of it.

The order of a message's life is the order of this file. One notice's trouble never stops the next; trouble of the
relay, the source or the ledger stops the tier, and what was not sent waits.
"""

import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Final

from token_pipelines.errors import RelayError, TokenPipelinesError
from token_pipelines.ledger.sending import Record, Sending
from token_pipelines.mail.message import Envelope
from token_pipelines.mail.transport import Connection
from token_pipelines.model import Notice, Outcome, Stage, State
from token_pipelines.parts import Parts
from token_pipelines.planning import leftovers_since
from token_pipelines.resolving import Letter, resolve

log = logging.getLogger(__name__)

CLAIM_SIZE: Final = 200
"""Notices claimed and read again at a time: large enough to be cheap, small enough that two runs share the work."""


REFUSALS_ALLOWED: Final = 10
REFUSALS_ALLOWED_PERCENT: Final = 5
"""More refusals than the larger of the two in one tier's run, and the relay or we are at fault, not the recipients."""


@dataclass
class TierReport:
    """What a run did for one tier, counted in notices. Filled while it works, so it is true after a failure too."""

    sent: int = 0
    deferred: int = 0
    failed: int = 0
    unknown: int = 0
    waiting: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    trouble: TokenPipelinesError | None = None

    @property
    def due(self) -> int:
        """Everything that was due in this tier, told or not."""
        return self.sent + self.deferred + self.failed + self.unknown + self.waiting + self.skipped.total()

    @property
    def undelivered(self) -> int:
        """What was due, could have been told, and was not."""
        return self.deferred + self.failed + self.unknown + self.waiting


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
        report: filled with the tier's numbers, also when this is interrupted; ``trouble`` holds what stopped the
            tier, if anything did.
        has_ended: whether the orchestrator knows that another run has ended.
        on_progress: told after each message how many are done.
    """
    delivery = parts.config.delivery
    durable = delivery.on_unknown == "hold"
    with parts.ledger.sending(run_id=run_id, mode=delivery.mode, durable=durable, has_ended=has_ended) as sending:
        waiting = _waiting(parts, sending, tier)
        tier_run = _TierRun(parts, sending, report, on_progress, size=len(waiting))
        try:
            tier_run.send_all(waiting)
            for pause in delivery.retry_pauses:
                if tier_run.put_off and not tier_run.stopped.wait(pause.total_seconds()):
                    tier_run.send_all(tier_run.take_put_off())
        finally:
            tier_run.settle_refusals()
            sending.give_back()
            left = set(_waiting(parts, sending, tier)) - tier_run.in_doubt
            report.deferred = len(left & tier_run.done)
            report.waiting = len(left - tier_run.done)


def _waiting(parts: Parts, sending: Sending, tier: str) -> list[str]:
    delivery = parts.config.delivery
    since = leftovers_since(parts, parts.clock())
    return sending.waiting(
        tier, since=since, resend=delivery.on_unknown == "resend", max_attempts=delivery.max_attempts
    )


class _TierRun:
    """One tier's work in one run, shared by its threads."""

    def __init__(
        self, parts: Parts, sending: Sending, report: TierReport, on_progress: Callable[[int], None], *, size: int
    ) -> None:
        self.parts = parts
        self.sending = sending
        self.report = report
        self.put_off: set[str] = set()  # answered "not now": tried again at the end of this run
        self.in_doubt: set[str] = set()  # left to later runs
        self.done: set[str] = set()
        self.refused: list[Record] = []
        self._refusals_allowed = max(REFUSALS_ALLOWED, size * REFUSALS_ALLOWED_PERCENT // 100)
        self.stopped = threading.Event()
        self._on_progress = on_progress
        self._counting = threading.Lock()

    def send_all(self, notice_ids: list[str]) -> None:
        """Share the notices out among the connections' threads, and wait for all of them."""
        batches: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        threads = min(self.parts.config.smtp.connections, len(notice_ids))
        size = max(1, min(CLAIM_SIZE, -(-len(notice_ids) // max(1, threads))))
        for start in range(0, len(notice_ids), size):
            batches.put(notice_ids[start : start + size])
        with ThreadPoolExecutor(max_workers=max(1, threads), thread_name_prefix="sender") as pool:
            work = [pool.submit(self._work, batches) for _ in range(threads)]
            try:
                wait(work)
            except BaseException:  # Ctrl-C: finish what is on the sockets, begin nothing new
                self.stopped.set()
                raise

    def settle_refusals(self) -> None:
        """Suppress the addresses that the relay says do not exist; if it said so of too many, believe none of it."""
        if len(self.refused) > self._refusals_allowed:
            self.sending.reopen([record.notice_id for record in self.refused])
            self.report.failed -= len(self.refused)
            return
        for record in self.refused:
            if record.outcome.address_is_dead:
                cause = f"the relay refused it: {record.outcome.enhanced}"
                self.parts.ledger.suppress(record.address_hash, at=record.at, cause=cause)

    def take_put_off(self) -> list[str]:
        """The notices that the relay put off, to be tried once more."""
        again, self.put_off = list(self.put_off), set()
        return again

    def _work(self, batches: queue.SimpleQueue[list[str]]) -> None:
        sender = _Sender(self)
        try:
            while not self.stopped.is_set():
                sender.send_batch(batches.get_nowait())
        except queue.Empty:
            pass
        except TokenPipelinesError as error:
            self.report.trouble = self.report.trouble or error
            self.stopped.set()
        except Exception as error:
            log.exception("The sender ended by a fault of ours.")
            msg = f"Sending stopped by a fault of ours ({type(error).__name__}); please report it with the run's log."
            self.report.trouble = TokenPipelinesError(msg)
            self.stopped.set()
        finally:
            sender.close()

    def refuse(self, record: Record) -> None:
        """Keep a refusal for good.

        Raises:
            RelayError: if there are so many that the fault must be the relay's, or ours.
        """
        with self._counting:
            self.refused.append(record)
            refusals = len(self.refused)
        if refusals > self._refusals_allowed:
            msg = (
                f"The relay refused {refusals} recipients of this tier for good, which is too many to believe (the "
                f"last with {record.outcome.code} {record.outcome.reply}); nobody is suppressed: look at the relay's "
                "log, then run again."
            )
            raise RelayError(msg)

    def wait_or_give_up(self, error: RelayError, troubles: int) -> None:
        """Pause after a relay's trouble that may pass; raise it when it has been too often, or will not pass."""
        pauses = self.parts.config.smtp.reconnect_pauses
        if not error.may_pass or troubles > len(pauses) or self.stopped.wait(pauses[troubles - 1].total_seconds()):
            raise error

    def count(self, notice: Notice, outcome: State, reason: str | None = None) -> None:
        """Keep the numbers; called once for each notice that a thread is done with."""
        with self._counting:
            if outcome is State.DEFERRED:
                self.put_off.add(notice.notice_id)
            elif outcome is State.SKIPPED:
                self.report.skipped[str(reason)] += 1
            elif outcome is State.UNKNOWN:
                self.report.unknown += 1
                self.in_doubt.add(notice.notice_id)
            elif outcome is State.FAILED:
                self.report.failed += 1
            else:
                self.report.sent += 1
            self.done.add(notice.notice_id)
            self._on_progress(len(self.done))


class _Sender:
    """One thread's connection, and the outcome it has not yet written down."""

    def __init__(self, tier_run: _TierRun) -> None:
        self._run = tier_run
        self._parts = tier_run.parts
        self._sending = tier_run.sending
        self._connection: Connection | None = None
        self._unrecorded: Record | None = None

    def send_batch(self, notice_ids: list[str]) -> None:
        """Claim a batch, read its tokens again, and deliver notice by notice."""
        delivery = self._parts.config.delivery
        claimed = self._sending.claim(
            notice_ids, resend=delivery.on_unknown == "resend", max_attempts=delivery.max_attempts
        )
        try:
            for letter in resolve(self._parts, claimed, self._parts.clock()):
                if self._run.stopped.is_set():
                    break
                self._deliver(letter)
        finally:
            self._write_down()

    def _deliver(self, letter: Letter) -> None:
        notice = letter.notice
        if letter.recipient is None:
            self._sending.skip(notice, letter.reason)
            self._run.count(notice, State.SKIPPED, letter.reason)
            return
        if letter.dropped:
            self._sending.drop(notice, letter.dropped)
        try:
            envelope = self._write(letter)
        except Exception as error:  # one letter that cannot be written must not stop the next
            log.exception("Notice %s could not be written.", notice.notice_id)
            reply = f"the email could not be written ({type(error).__name__})"
            self._keep(letter, Outcome(state=State.DEFERRED, stage=Stage.CONNECT, reply=reply))
            return
        outcome = self._send(notice, envelope)
        if outcome is not None:
            self._keep(letter, outcome)

    def _send(self, notice: Notice, envelope: Envelope) -> Outcome | None:
        """Mark, then send; a relay in trouble gets some pauses. None when another run has taken the notice over."""
        troubles = 0
        while True:
            try:
                if self._connection is None:
                    self._connection = self._parts.relay.connect()
            except RelayError as error:
                troubles += 1
                self._run.wait_or_give_up(error, troubles)
                continue
            if not self._sending.record_and_mark(self._take_unrecorded(), notice.notice_id, self._parts.clock()):
                log.warning("Notice %s was taken over by another run; it is not sent here.", notice.notice_id)
                return None
            try:
                return self._connection.send(envelope)
            except RelayError as error:  # nothing of it was delivered
                self._sending.unmark(notice.notice_id)
                troubles += 1
                self._run.wait_or_give_up(error, troubles)

    def _write(self, letter: Letter) -> Envelope:
        """The email; one in doubt is written as of its first try, so that both copies are the same bytes."""
        assert letter.recipient is not None  # noqa: S101 -- narrows the type: checked by _deliver
        at = letter.notice.first_tried_at or self._parts.clock()
        content = self._parts.renderer.render(letter.recipient, letter.tokens, now=at)
        return self._parts.serialiser.envelope(content, letter.recipient, message_id=letter.notice.message_id, at=at)

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
        self._run.count(letter.notice, outcome.state)
        if outcome.state is State.FAILED:
            self._run.refuse(record)

    def _take_unrecorded(self) -> Record | None:
        record, self._unrecorded = self._unrecorded, None
        return record

    def _write_down(self) -> None:
        record = self._take_unrecorded()
        if record is not None:
            self._sending.record(record)

    def close(self) -> None:
        """Say goodbye to the relay."""
        if self._connection is not None:
            self._connection.close()
