"""Reads delivery reports and complaints, finds the notice that each one is about, and records it in the ledger.

Idempotent: a report read twice is recorded once, so the same mailbox may be read again. Addresses stay in memory;
warnings name a message by its file.

A mailbox holds mostly spam. So a message that was seen before is not read again, a message that names no notice of
ours is not parsed, and what is skipped is summed up in one line.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from token_pipelines.clock import Clock
from token_pipelines.feedback.bounces.belief import explain_disbelief, is_believed
from token_pipelines.feedback.bounces.mailboxes import StoredMessage, read_messages
from token_pipelines.feedback.bounces.reports import (
    READ_AT_MOST,
    Report,
    is_a_report,
    mentioned_ids,
    mentioned_tags,
    read_report,
)
from token_pipelines.feedback.bounces.skipped import Skipped
from token_pipelines.ledger.bounces import Bounce, Kept
from token_pipelines.ledger.ledger import Ledger

_AT_A_TIME: Final = 500
"""Messages that are looked up in the ledger together."""

_OCTETS_AT_A_TIME: Final = 16 << 20


@dataclass
class BounceCounts:
    """How many messages were read, and what they were.

    ``read`` = ``matched`` + ``unmatched`` + ``not_reports`` + ``seen``.
    """

    read: int = 0
    matched: int = 0  # about a notice of this ledger
    recorded: int = 0  # of the matched: notices that have newly failed
    suppressed: int = 0  # addresses newly suppressed: they do not exist, or their owner complained
    delayed: int = 0  # of the matched: the mail system is still trying
    complaints: int = 0  # of the matched
    early: int = 0  # of the matched: a run is still sending the notice; read the report again later
    unbelieved: int = 0  # notices newly deferred: the relay may be at fault
    unmatched: int = 0
    not_reports: int = 0
    seen: int = 0  # read by an earlier reading, or earlier in this one
    unreadable: int = 0  # files that could not be opened; not in ``read``

    @property
    def complete(self) -> bool:
        """Whether no message has to be read again."""
        return not self.early and not self.unreadable


def read_bounces(
    ledger: Ledger, paths: Iterable[Path], *, clock: Clock, on_warning: Callable[[str], None]
) -> BounceCounts:
    """Read every message in these files, mboxes and maildirs, and record the bounces and complaints.

    Args:
        ledger: where the notices are.
        paths: what to read.
        clock: gives the present instant.
        on_warning: called with a sentence for each kind of message that was skipped, and for what is not believed.

    Raises:
        LedgerError: the ledger cannot be reached, and what was read until then is recorded; or another reading is in
            progress, and nothing was read.
    """
    with ledger.read_messages.alone():
        reading = _Reading(ledger, clock)
        for batch in reading.batches(paths):
            reading.record(batch)
        reading.judge(on_warning)
        ledger.read_messages.forget(at=clock())
        reading.skipped.explain(on_warning)
        return reading.counts


class _Reading:
    """One reading of some mailboxes."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        """Read nothing yet."""
        self.counts = BounceCounts()
        self.skipped = Skipped()
        self._ledger = ledger
        self._clock = clock
        self._seen = ledger.read_messages.digests()

    def batches(self, paths: Iterable[Path]) -> Iterator[list[tuple[StoredMessage, bytes]]]:
        """The messages that were not seen before, some at a time."""
        batch: list[tuple[StoredMessage, bytes]] = []
        octets = 0
        for path in paths:
            for stored in read_messages(path, at_most=READ_AT_MOST, seen=self._seen):
                if stored.error:
                    self.counts.unreadable += 1
                    self.skipped.add("unreadable", f"{stored.name} ({stored.error})")
                    continue
                self.counts.read += 1
                if stored.content is None:
                    self.counts.seen += 1
                    continue
                self._seen.add(stored.digest)
                batch.append((stored, stored.content))
                octets += len(stored.content)
                if len(batch) >= _AT_A_TIME or octets >= _OCTETS_AT_A_TIME:
                    yield batch
                    batch, octets = [], 0
        yield batch

    def record(self, batch: list[tuple[StoredMessage, bytes]]) -> None:
        """Record what these messages report."""
        mentioned = {stored.digest: mentioned_ids(content) | self._proven_in(content) for stored, content in batch}
        ours = self._ledger.bounces.find({notice_id for ids in mentioned.values() for notice_id in ids})
        done = [
            stored.digest
            for stored, content in batch
            if self._record(stored, content, ours.intersection(mentioned[stored.digest]))
        ]
        self._ledger.read_messages.remember(done, at=self._clock())

    def _proven_in(self, content: bytes) -> set[str]:
        return set(self._ledger.bounces.proven(mentioned_tags(content)))

    def _record(self, stored: StoredMessage, content: bytes, ours: set[str]) -> bool:
        """Whether the message need not be read again."""
        if not ours:
            if is_a_report(content):
                self.counts.unmatched += 1
                self.skipped.add("unmatched", stored.name)
            else:
                self.counts.not_reports += 1
                self.skipped.add("not_reports", stored.name)
            return True
        report = _report(content)
        if report is None:
            self.counts.not_reports += 1
            self.skipped.add("not_reports", stored.name)
            return True
        proven = [notice_id for notice_id in self._ledger.bounces.proven(report.tags) if notice_id in ours]
        notice_id = next((found for found in (*proven, *report.notice_ids) if found in ours), None)
        if notice_id is None:
            self.counts.unmatched += 1
            self.skipped.add("unmatched", stored.name)
            return True
        self.counts.matched += 1
        self.counts.delayed += report.delayed
        self.counts.complaints += report.complains
        kept = self._keep(stored, report, notice_id, proven=bool(proven))
        self.counts.suppressed += kept is Kept.SUPPRESSED
        if kept is Kept.EARLY:
            self.counts.early += 1
            self.skipped.add("early", f"{stored.name} (notice {notice_id})")
        return kept is not Kept.EARLY

    def _keep(self, stored: StoredMessage, report: Report, notice_id: str, *, proven: bool) -> Kept:
        ledger = self._ledger
        if not (report.given_up or report.complains):
            return Kept.KNOWN
        bounce = Bounce(
            digest=stored.digest,
            notice_id=notice_id,
            at=self._clock(),
            code=report.code,
            enhanced=report.status,
            reply=report.reply,
            address_is_dead=report.address_is_dead,
            named=None if report.address is None else ledger.hash_address.known(report.address),
            proven=proven,
        )
        return ledger.bounces.complain(bounce) if report.complains else ledger.bounces.keep(bounce)

    def judge(self, on_warning: Callable[[str], None]) -> None:
        """Decide which failures lie with the recipient, those of earlier readings included."""
        bounces, now = self._ledger.bounces, self._clock()
        evidence = bounces.evidence(now=now)
        changed = [report for report in evidence if report.believed is not is_believed(report)]
        changes = bounces.carry_out({report.digest: is_believed(report) for report in changed}, at=now)
        self.counts.recorded += changes.failed
        self.counts.suppressed += changes.suppressed
        self.counts.unbelieved += changes.deferred
        doubted = [report for report in changed if not is_believed(report)]
        if doubted:
            on_warning(explain_disbelief(doubted, taken_back=changes.taken_back))


def _report(content: bytes) -> Report | None:
    try:
        return read_report(content)
    except Exception:  # noqa: BLE001 -- strangers write to that mailbox, and one message must not stop the others
        return None
