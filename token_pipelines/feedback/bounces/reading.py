"""Reads delivery reports, finds the notice that each one is about, and records the bounce in the ledger.

Idempotent: a report read twice is recorded once, so the same mailbox may be read again. Addresses stay in memory;
warnings name a message by its file.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from token_pipelines.clock import Clock
from token_pipelines.feedback.bounces.mailboxes import StoredMessage, read_messages
from token_pipelines.feedback.bounces.reports import READ_AT_MOST, Report, read_report
from token_pipelines.ledger.bounces import Bounce, Kept
from token_pipelines.ledger.ledger import Ledger


@dataclass
class BounceCounts:
    """How many messages were read, and what they were. ``read`` = ``matched`` + ``unmatched`` + ``not_reports``."""

    read: int = 0
    matched: int = 0  # about a notice of this ledger
    recorded: int = 0  # of the matched: newly recorded as failed
    suppressed: int = 0  # of the recorded: the address does not exist, so it is suppressed
    delayed: int = 0  # of the matched: the mail system is still trying
    early: int = 0  # of the matched: a run is still sending the notice; read the report again later
    unmatched: int = 0
    not_reports: int = 0
    unreadable: int = 0  # files that could not be opened; not in ``read``

    @property
    def complete(self) -> bool:
        """Whether no message has to be read again."""
        return not self.early and not self.unreadable


def read_bounces(
    ledger: Ledger, paths: Iterable[Path], *, clock: Clock, on_warning: Callable[[str], None]
) -> BounceCounts:
    """Read every message in these files, mboxes and maildirs, and record the bounces.

    Args:
        ledger: where the notices are.
        paths: what to read.
        clock: gives the present instant.
        on_warning: called with a sentence that names the file, for each message that was not recorded or counted as
            delayed.

    Raises:
        LedgerError: the ledger cannot be reached; what was read until then is recorded.
    """
    counts = BounceCounts()
    for path in paths:
        for stored in read_messages(path, at_most=READ_AT_MOST):
            _record(ledger, stored, counts, clock=clock, on_warning=on_warning)
    return counts


def _record(
    ledger: Ledger,
    stored: StoredMessage,
    counts: BounceCounts,
    *,
    clock: Clock,
    on_warning: Callable[[str], None],
) -> None:
    if stored.content is None:
        counts.unreadable += 1
        on_warning(f"{stored.name} cannot be read ({stored.error}).")
        return
    counts.read += 1
    report = _report(stored.content)
    if report is None:
        counts.not_reports += 1
        on_warning(f"{stored.name} is not a delivery report.")
        return
    proven = ledger.bounces.prove(report.tags)
    notice_id = proven or ledger.bounces.find(report.notice_ids)
    if notice_id is None:
        counts.unmatched += 1
        on_warning(f"{stored.name} is a delivery report, but not about a notice of this ledger.")
        return
    counts.matched += 1
    counts.delayed += report.delayed
    if not report.given_up:
        return
    kept = ledger.bounces.keep(_bounce(ledger, report, notice_id, clock, proven=proven is not None))
    counts.recorded += kept in {Kept.RECORDED, Kept.SUPPRESSED}
    counts.suppressed += kept is Kept.SUPPRESSED
    if kept is Kept.EARLY:
        counts.early += 1
        on_warning(f"{stored.name} is about notice {notice_id}, which a run is sending right now; read it again later.")


def _report(content: bytes) -> Report | None:
    try:
        return read_report(content)
    except Exception:  # noqa: BLE001 -- strangers write to that mailbox, and one message must not stop the others
        return None


def _bounce(ledger: Ledger, report: Report, notice_id: str, clock: Clock, *, proven: bool) -> Bounce:
    return Bounce(
        notice_id=notice_id,
        at=clock(),
        code=report.code,
        enhanced=report.status,
        reply=report.reply,
        address_is_dead=report.address_is_dead,
        named=None if report.address is None else ledger.hash_address.known(report.address),
        proven=proven,
    )
