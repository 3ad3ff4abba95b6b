"""Use case 3: read what came back, find the notice that each report is about, and keep it in the ledger.

A report read twice is kept once, so the same mailbox may be read again and again. Addresses stay in memory: what is
told about a message is the name of its file.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from token_pipelines.feedback.bounces.mailboxes import Stored, read_messages
from token_pipelines.feedback.bounces.reports import READ_AT_MOST, Report, read_report
from token_pipelines.ledger.bounces import Bounce, Kept
from token_pipelines.ledger.ledger import Ledger
from token_pipelines.pipeline import Clock


@dataclass
class BounceCounts:
    """What a reading found, counted in messages. ``read`` is ``matched``, ``unmatched`` and ``not_reports``."""

    read: int = 0
    matched: int = 0  # about a notice of this ledger
    recorded: int = 0  # of these: given up, and not known before
    suppressed: int = 0  # of these: the address was no good, and nobody writes to it any more
    delayed: int = 0  # of the matched: the mail system still tries
    early: int = 0  # of the matched: the notice is in a run's hands; to be read again
    unmatched: int = 0
    not_reports: int = 0
    unreadable: int = 0  # files that could not be opened; not in ``read``

    @property
    def complete(self) -> bool:
        """Whether nothing has to be read again."""
        return not self.early and not self.unreadable


def read_bounces(ledger: Ledger, paths: Iterable[Path], *, clock: Clock, tell: Callable[[str], None]) -> BounceCounts:
    """Read every message in these files, mboxes and maildirs.

    Args:
        ledger: where the notices are.
        paths: what to read.
        clock: when it is.
        tell: given a sentence with the file's name for each message that led to nothing.

    Raises:
        LedgerError: the ledger cannot be reached; what was read so far is kept.
    """
    counts = BounceCounts()
    for path in paths:
        for stored in read_messages(path, at_most=READ_AT_MOST):
            _count(ledger, stored, counts, clock=clock, tell=tell)
    return counts


def _count(ledger: Ledger, stored: Stored, counts: BounceCounts, *, clock: Clock, tell: Callable[[str], None]) -> None:
    if stored.content is None:
        counts.unreadable += 1
        tell(f"{stored.name} cannot be read ({stored.trouble}).")
        return
    counts.read += 1
    report = _report(stored.content)
    if report is None:
        counts.not_reports += 1
        tell(f"{stored.name} is not a delivery report.")
        return
    notice_id = ledger.bounces.find(report.notice_ids)
    if notice_id is None:
        counts.unmatched += 1
        tell(f"{stored.name} is a delivery report about no notice of this ledger.")
        return
    counts.matched += 1
    counts.delayed += report.delayed
    if not report.given_up:
        return
    kept = ledger.bounces.keep(_bounce(ledger, report, notice_id, clock))
    counts.recorded += kept in {Kept.RECORDED, Kept.SUPPRESSED}
    counts.suppressed += kept is Kept.SUPPRESSED
    if kept is Kept.EARLY:
        counts.early += 1
        tell(f"{stored.name} is about notice {notice_id}, which a run is sending at this moment; read it again later.")


def _report(content: bytes) -> Report | None:
    try:
        return read_report(content)
    except Exception:  # noqa: BLE001 -- anybody writes to that mailbox, and one message must not stop the next
        return None


def _bounce(ledger: Ledger, report: Report, notice_id: str, clock: Clock) -> Bounce:
    return Bounce(
        notice_id=notice_id,
        at=clock(),
        code=report.code,
        enhanced=report.status,
        reply=report.reply,
        address_is_dead=report.address_is_dead,
        named=None if report.address is None else ledger.hash_address(report.address),
    )
