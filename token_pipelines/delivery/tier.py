"""One tier's run: what waits is claimed, read again, written, sent, and recorded. Read this first.

`batches` claims and reads, `outbox` writes, `loop` sends over all `connections`, `recording` takes outcomes into the
ledger. One notice's trouble never stops the next; trouble of the relay, the source or the ledger stops the tier, and
what was not sent waits.
"""

import gc
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from token_pipelines.delivery.acceptance import Acceptance
from token_pipelines.delivery.batches import Batches
from token_pipelines.delivery.connections import Connections
from token_pipelines.delivery.counts import TierCounts, TierReport
from token_pipelines.delivery.helper_pool import HelperPool
from token_pipelines.delivery.interrupts import put_off
from token_pipelines.delivery.loop import SendingLoop
from token_pipelines.delivery.on_sent import OnSentRunner
from token_pipelines.delivery.outbox import Outbox
from token_pipelines.delivery.recording import Recorder
from token_pipelines.errors import TokenPipelinesError
from token_pipelines.ledger.sending import Sending
from token_pipelines.pipeline import Pipeline

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.1
"""How often a pause looks whether the run is to stop."""


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
        TokenPipelinesError: what stopped the tier: trouble of the relay, the source or the ledger.
    """
    mode = pipeline.config.delivery.mode
    with pipeline.ledger.sending(run_id=run_id, mode=mode, has_ended=has_ended) as sending:
        waiting = _waiting(pipeline, sending, tier)
        counts = TierCounts(report, on_progress=on_progress)
        on_sent = OnSentRunner(pipeline, report)
        run = _Run(pipeline, sending, counts, on_sent)
        try:
            with put_off(run.interrupt), _loaded_objects_frozen():
                run.send(waiting)
        finally:
            _settle_refusals(pipeline, sending, run.acceptance)
            sending.give_back()
            counts.close(waiting=set(_waiting(pipeline, sending, tier)))
            report.rate = pipeline.channel.rate.per_second
        on_sent.catch_up()
    if run.trouble is not None:
        raise run.trouble


def _waiting(pipeline: Pipeline, sending: Sending, tier: str) -> list[str]:
    delivery = pipeline.config.delivery
    since = pipeline.leftovers_since(pipeline.clock())
    return sending.waiting(
        tier, since=since, resend=delivery.on_unknown == "resend", max_attempts=delivery.max_attempts
    )


class _Run:
    """The passes over a tier's notices: all that wait, then after each pause those that the relay put off."""

    def __init__(self, pipeline: Pipeline, sending: Sending, counts: TierCounts, on_sent: OnSentRunner) -> None:
        self._pipeline = pipeline
        self._sending = sending
        self._counts = counts
        self._on_sent = on_sent
        self.acceptance = Acceptance(pipeline.channel.explain)
        self._is_stopping = False
        self._loop: SendingLoop | None = None
        self._trouble: TokenPipelinesError | None = None

    @property
    def trouble(self) -> TokenPipelinesError | None:
        """What stopped it, or the trouble of all that was tried."""
        return self._trouble or self.acceptance.trouble

    def interrupt(self) -> None:
        """Begin no further message. A signal's handler calls it."""
        self._is_stopping = True
        if self._loop is not None:
            self._loop.stop()

    def send(self, waiting: Sequence[str]) -> None:
        self._send_once(waiting)
        for pause in self._pauses():
            again = self._counts.take_put_off()
            if not again or not self._goes_on_after(pause):
                break
            self._send_once(again)

    def _pauses(self) -> Iterator[timedelta]:
        """The configured pauses, then the last one again while passes make progress; all before the deadline."""
        delivery = self._pipeline.config.delivery
        until = time.monotonic() + delivery.deadline.total_seconds()
        accepted = 0
        for pause in delivery.retry_pauses:
            if time.monotonic() + pause.total_seconds() > until:
                return
            accepted = self.acceptance.accepted
            yield pause
        while delivery.retry_pauses and self.acceptance.accepted > accepted:
            pause = delivery.retry_pauses[-1]
            if time.monotonic() + pause.total_seconds() > until:
                return
            accepted = self.acceptance.accepted
            yield pause

    def _goes_on_after(self, pause: timedelta) -> bool:
        until = time.monotonic() + pause.total_seconds()
        while not self._is_stopping and (left := until - time.monotonic()) > 0:
            time.sleep(min(LOOK_EVERY_S, left))
        return not self._is_stopping

    def _send_once(self, notice_ids: Sequence[str]) -> None:
        pipeline, smtp = self._pipeline, self._pipeline.config.smtp
        if not notice_ids or self._is_stopping:
            return
        count = min(smtp.connections, len(notice_ids))
        with (
            HelperPool(count) as helpers,
            Connections(pipeline.channel, helpers, count=count, pauses=smtp.reconnect_pauses) as connections,
            Batches(
                pipeline,
                self._sending,
                notice_ids,
                helpers=helpers,
                on_skip=self._counts.skip,
                on_unreadable=self._counts.keep_unreadable,
            ) as batches,
        ):
            batches.on_more = connections.wake
            recorder = Recorder(self._sending, self._counts, self._on_sent, helpers=helpers, clock=pipeline.clock)
            outbox = Outbox(pipeline, batches, on_fault=recorder.keep_fault, expect=self.acceptance.expect)
            patience = smtp.command_timeout.total_seconds()
            self._loop = SendingLoop(connections, outbox, recorder, self.acceptance, patience=patience)
            if self._is_stopping:  # interrupted just now
                self._loop.stop()
            self._loop.run()
            recorder.finish()
        self._trouble = self._loop.trouble
        self._is_stopping |= self._loop.is_stopping


def _settle_refusals(pipeline: Pipeline, sending: Sending, acceptance: Acceptance) -> None:
    """Believe the refusals for good that the evidence allows: those notices fail, and dead addresses are suppressed."""
    refused = acceptance.refused
    zone = str(pipeline.config.schedule.timezone)
    before = sending.refused_before([record.notice_id for record in refused], zone=zone)
    believed = acceptance.believed(before)
    for record in believed:
        if record.outcome.address_is_dead:
            cause = f"the relay refused it: {record.outcome.enhanced}"
            pipeline.ledger.suppressions.add([record.address_hash], at=record.at, cause=cause)
    sending.fail([record.notice_id for record in believed])
    if doubted := len(refused) - len(believed):
        log.warning(
            "The relay refused %d recipients for good, and too few others were accepted to believe it yet: their "
            "notices are put off, and nobody of them is suppressed.",
            doubted,
        )


@contextmanager
def _loaded_objects_frozen() -> Iterator[None]:
    """Let the garbage collector leave out what is loaded already: going through it costs 15 µs a message."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
