"""The numbers of one tier's run."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from token_pipelines.ledger.settlement import Record
from token_pipelines.model import State, UnreadableRow


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
    rate: float | None = None
    """Messages a second that are sent at most, at the end; None where nothing limits it."""
    unreadable: dict[UnreadableRow, None] = field(default_factory=dict)
    """Rows that could not be read just before sending, in order, each once."""

    @property
    def due(self) -> int:
        """Everything that was due in this tier, told or not."""
        return self.sent + self.deferred + self.failed + self.unknown + self.waiting + self.skipped.total()


class TierCounts:
    """Counts into a report what became of each notice. Another thread may call `skip`."""

    def __init__(self, report: TierReport, *, on_progress: Callable[[int], None]) -> None:
        """``on_progress`` is told how many are done."""
        self._report = report
        self._on_progress = on_progress
        self._put_off: set[str] = set()
        self._in_doubt: set[str] = set()
        self._done: set[str] = set()
        self._refused: set[str] = set()

    def skip(self, notice_id: str, reason: str) -> None:
        """Count a notice in which nothing was left to say."""
        self._report.skipped[reason] += 1
        self._finish(notice_id)

    def keep_unreadable(self, rows: Iterable[UnreadableRow]) -> None:
        """Keep which rows could not be read."""
        self._report.unreadable.update(dict.fromkeys(rows))

    def keep(self, record: Record) -> None:
        """Count an outcome. `close` tells which refusals for good were believed."""
        match record.outcome.state:
            case State.SENT:
                self._report.sent += 1
            case State.UNKNOWN:
                self._report.unknown += 1
                self._in_doubt.add(record.notice_id)
            case State.FAILED:
                self._refused.add(record.notice_id)
            case _ if record.outcome.code is None or record.outcome.code < 500:  # noqa: PLR2004 5yz stays for now
                self._put_off.add(record.notice_id)
            case _:
                pass
        self._finish(record.notice_id)

    def _finish(self, notice_id: str) -> None:
        self._done.add(notice_id)
        self._on_progress(len(self._done))

    def take_put_off(self) -> list[str]:
        """The notices that the relay put off since the last call."""
        again, self._put_off = list(self._put_off), set()
        return again

    def close(self, waiting: set[str]) -> None:
        """Count what still waits: tried and put off, or not come to."""
        waiting = waiting - self._in_doubt
        self._report.deferred = len(waiting & self._done)
        self._report.failed = len(self._refused - waiting)
        self._report.waiting = len(waiting - self._done)
