"""The numbers of one tier's run, and the line between a person's trouble and the relay's."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from token_pipelines.errors import RelayError
from token_pipelines.ledger.settlement import Record
from token_pipelines.model import State, UnreadableRow

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
    not_written_back: int | None = None
    """Sent, but `source.on_sent` failed for them, also of earlier runs; None where it is not set."""
    write_back_fault: str = ""
    skipped: Counter[str] = field(default_factory=Counter)
    unreadable: dict[UnreadableRow, None] = field(default_factory=dict)
    """Rows that could not be read just before sending, in order, each once."""

    @property
    def due(self) -> int:
        """Everything that was due in this tier, told or not."""
        return self.sent + self.deferred + self.failed + self.unknown + self.waiting + self.skipped.total()


class TierCounts:
    """Counts into a report what became of each notice. Another thread may call `skip`."""

    def __init__(self, report: TierReport, *, size: int, on_progress: Callable[[int], None]) -> None:
        """Count a run of ``size`` notices; ``on_progress`` is told how many are done."""
        self._report = report
        self._refusals_allowed = max(REFUSALS_ALLOWED, size * REFUSALS_ALLOWED_PERCENT // 100)
        self._on_progress = on_progress
        self._put_off: set[str] = set()
        self._in_doubt: set[str] = set()
        self._done: set[str] = set()
        self._refused: list[Record] = []

    def skip(self, notice_id: str, reason: str) -> None:
        """Count a notice in which nothing was left to say."""
        self._report.skipped[reason] += 1
        self._finish(notice_id)

    def keep_unreadable(self, rows: Iterable[UnreadableRow]) -> None:
        """Keep which rows could not be read."""
        self._report.unreadable.update(dict.fromkeys(rows))

    def keep(self, record: Record) -> None:
        """Count an outcome.

        Raises:
            RelayError: if the relay refused too many for good, so that the cause must be the relay, or ours.
        """
        match record.outcome.state:
            case State.SENT:
                self._report.sent += 1
            case State.FAILED:
                self._report.failed += 1
                if record.outcome.code is not None:  # None: we saw for ourselves that this relay cannot take it
                    self._refused.append(record)
            case State.UNKNOWN:
                self._report.unknown += 1
                self._in_doubt.add(record.notice_id)
            case _:
                self._put_off.add(record.notice_id)
        self._finish(record.notice_id)
        if record.outcome.state is State.FAILED and len(self._refused) > self._refusals_allowed:
            last = f"{record.outcome.code} {record.outcome.reply}"
            msg = (
                f"The relay refused {len(self._refused)} recipients of this tier for good, which is too many to "
                f"believe (the last with {last}); nobody is suppressed: look at the relay's log, then run again."
            )
            raise RelayError(msg)

    def _finish(self, notice_id: str) -> None:
        self._done.add(notice_id)
        self._on_progress(len(self._done))

    def take_put_off(self) -> list[str]:
        """The notices that the relay put off since the last call."""
        again, self._put_off = list(self._put_off), set()
        return again

    @property
    def believed(self) -> list[Record]:
        """The refusals, if they are few enough to lie with the recipients."""
        return self._refused if len(self._refused) <= self._refusals_allowed else []

    def take_back_refusals(self) -> list[str]:
        """The notices whose refusals are not believed; they no longer count as failed."""
        if self.believed or not self._refused:
            return []
        self._report.failed -= len(self._refused)
        return [record.notice_id for record in self._refused]

    def close(self, waiting: set[str]) -> None:
        """Count what still waits: tried and put off, or not come to."""
        waiting = waiting - self._in_doubt
        self._report.deferred = len(waiting & self._done)
        self._report.waiting = len(waiting - self._done)
