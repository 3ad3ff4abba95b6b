"""A process that runs the product's code and stands still wherever it touches the world, until it is told to go on.

It stops before each transaction of the ledger, before it reads the source again, before a message goes to the socket
and after the relay has answered. While it stands, anything may happen: another process may run, a day may pass, it may
be killed. What it runs is `planning` and `delivery` as they are, in the order of the assets.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

import pandas as pd
from sqlalchemy import Connection, Engine
from state_machine.house import House
from state_machine.truth import Answer, Attempt, Seen, Setting, Truth
from token_pipelines.ledger.statements import Marks, Statement, Value
from token_pipelines.smtp.transport import RecipientInTroubleError

from token_pipelines.delivery.counts import TierReport
from token_pipelines.delivery.tier import send_tier
from token_pipelines.envelope import Envelope
from token_pipelines.errors import FuseTripped, LedgerError, RelayError, TokenPipelinesError
from token_pipelines.mail.rendering import Content
from token_pipelines.model import Outcome, Recipient, Stage, State, TokenFacts
from token_pipelines.pipeline import Pipeline
from token_pipelines.planning import SnapshotCounts, examine, no_tokens, plan
from token_pipelines.smtp.rate import RateLimit

OUTCOMES: Final = {
    Answer.SENT: Outcome(state=State.SENT, stage=Stage.DOT, code=250, queue_id="q"),
    Answer.DEFERRED: Outcome(state=State.DEFERRED, stage=Stage.RCPT, code=451, enhanced="4.2.2"),
    Answer.DEAD_ADDRESS: Outcome(
        state=State.FAILED, stage=Stage.RCPT, code=550, enhanced="5.1.1", address_is_dead=True
    ),
    Answer.REFUSED: Outcome(state=State.FAILED, stage=Stage.RCPT, code=554, enhanced="5.2.1"),
    Answer.LOST_AFTER_ARRIVAL: Outcome(state=State.UNKNOWN, stage=Stage.DOT),
    Answer.LOST_BEFORE_ARRIVAL: Outcome(state=State.UNKNOWN, stage=Stage.DOT),
}

PATIENCE_S: Final = 60.0
"""Longer than any step takes; a worker that blocks is a deadlock."""


class Killed(BaseException):
    """SIGKILL: nothing in the product may catch this, and nothing it does afterwards reaches the world."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a process is asked to do: plan, and send, these tiers of a day."""

    day: date
    tiers: tuple[str, ...]
    approve: bool = False
    snapshot: pd.DataFrame | None = None  # the day's file, for a tier that is run again alone


@dataclass(kw_only=True)
class ResolvedNotice:
    """What is about to be sent, from the read of its tokens to its answer."""

    recipient: Recipient
    tokens: tuple[TokenFacts, ...]
    said_at: datetime
    seen: Seen
    message_id: str = ""


class Wire(Protocol):
    """The story, as a worker sees it."""

    truth: Truth

    def next_answer(self) -> Answer: ...

    def handed_over(self, worker: "Worker", letter: ResolvedNotice, envelope: Envelope) -> Attempt: ...

    def planned(self, worker: "Worker", shares: dict[str, pd.DataFrame], snapshot: pd.DataFrame) -> None: ...

    def fuse_tripped(self, worker: "Worker") -> None: ...

    def tier_done(self, worker: "Worker", tier: str, trouble: TokenPipelinesError | None) -> None: ...

    def has_ended(self, run_id: str) -> bool: ...


@dataclass
class Worker:
    """One process with one run. ``trouble`` is what made it fail; ``violations`` what it should never have met."""

    run_id: str
    wire: Wire
    house: House
    setting: Setting
    job: Job
    parts: Pipeline = field(init=False)
    given_up: bool = False  # counts as dead: its lease has expired_leases, or the orchestrator says that it ended
    killed: bool = False
    finished: bool = False
    cut_after: int = 0  # so many transactions find the database,
    cut: int = 0  # and so many after them do not
    attempts_before: int = 0
    trouble: TokenPipelinesError | None = None
    fault: BaseException | None = None
    place: str = "start"
    _clock_read: datetime | None = None
    _seen: Seen | None = None
    _letter: ResolvedNotice | None = None
    _last: Attempt | None = None

    def __post_init__(self) -> None:
        self._written: dict[Envelope, ResolvedNotice] = {}  # several are written before the first of them is sent
        self._marks: list[Marks] = []
        self._until: Callable[[str], bool] = lambda _: False
        self._go, self._stood = threading.Semaphore(0), threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether what it has claimed is rightly its own."""
        return not (self.finished or self.killed or self.given_up)

    def run(self) -> None:
        """Do the whole job now, on this thread."""
        self._live()
        self._raise_fault()

    def start(self) -> None:
        """Begin the job on a thread of its own, and stand at the first place."""
        self._until = lambda _: True
        self._thread = threading.Thread(target=self._live, name=self.run_id, daemon=True)
        self._thread.start()
        self._wait_until_it_stands()

    def go_on(self, until: Callable[[str], bool]) -> None:
        """Go on until a place where ``until`` holds, or to the end."""
        self._until = until
        self._go.release()
        self._wait_until_it_stands()

    def kill(self) -> None:
        """End it where it stands. The message on its socket, and one answered but not recorded, are in doubt."""
        self.killed = True
        self.interrupt()
        self._go.release()
        self._wait_until_it_stands()

    def give_up(self) -> None:
        """Others take it for dead. It does not know."""
        self.given_up = True
        self.interrupt()

    def interrupt(self) -> None:
        """The last message may never be recorded as it was answered."""
        if self._last is not None:
            self._last.interrupted = True

    def _wait_until_it_stands(self) -> None:
        if not self._stood.acquire(timeout=PATIENCE_S):
            msg = f"{self.run_id} is stuck after {self.place}"
            raise TimeoutError(msg)
        if self.finished and self._thread is not None:
            self._thread.join(PATIENCE_S)
        self._raise_fault()

    def _raise_fault(self) -> None:
        if self.fault is not None:
            raise self.fault

    def _live(self) -> None:
        try:
            with ExitStack() as stack:
                ledger = stack.enter_context(self.house.ledger())
                stack.enter_context(self._watching(ledger.engine))
                parts = self.house.parts(self.setting, self._clock, ledger)
                press = _Press(self, parts)
                self.parts = replace(
                    parts,
                    source=_Watched(self, parts),  # type: ignore[arg-type]
                    renderer=press,  # type: ignore[arg-type]
                    serialiser=press,  # type: ignore[arg-type]
                    relay=_Relay(self),  # type: ignore[arg-type]
                )
                self._work()
        except Killed:
            pass
        except TokenPipelinesError as error:
            self.trouble = error
        except BaseException as error:  # noqa: BLE001 -- raised again on the story's thread
            self.fault = error
        finally:
            self.finished = True
            self._stood.release()

    def _work(self) -> None:
        """The day's job in the order of `defs.assets`: a tier that fails does not stop the next."""
        parts, job = self.parts, self.job
        with parts.ledger.alive(self.run_id):
            snapshot = job.snapshot
            if snapshot is None:
                frames = list(examine(parts, day=job.day, counts=SnapshotCounts()))
                snapshot = pd.concat(frames, ignore_index=True) if frames else no_tokens(parts)
            try:
                shares = plan(parts, snapshot, day=job.day, tiers=job.tiers, run_id=self.run_id, approve=job.approve)
            except FuseTripped:
                self.wire.fuse_tripped(self)
                raise
            self.wire.planned(self, shares, snapshot)
            self.attempts_before = len(self.wire.truth.attempts)
            for tier in parts.policy.tiers:
                if tier.name in job.tiers:
                    self._send(tier.name)

    def _send(self, tier: str) -> None:
        trouble = None
        try:
            send_tier(self.parts, tier, run_id=self.run_id, report=TierReport(), has_ended=self.wire.has_ended)
        except TokenPipelinesError as error:
            trouble = error
        self.trouble = self.trouble or trouble
        self.wire.tier_done(self, tier, trouble)

    def _clock(self) -> datetime:
        self._clock_read = self.wire.truth.now
        return self._clock_read

    def stand(self, place: str) -> None:
        """Stop here if the story wants it."""
        if self.killed:
            raise Killed
        self.place = place
        if self._thread is not None and self._until(place):
            self._stood.release()
            self._go.acquire()
            if self.killed:
                raise Killed

    @contextmanager
    def _watching(self, engine: Engine) -> Iterator[None]:
        """Stand before each transaction. Not an event of SQLAlchemy's: raising in one keeps the connection taken."""
        connect = engine.connect

        def watched() -> Connection:
            self._before_transaction()
            return connect()

        self._pool = engine.pool
        engine.connect = watched  # type: ignore[method-assign]
        _WATCHED[engine] = self
        try:
            yield
        finally:
            del engine.connect, _WATCHED[engine]

    def marks(self, marks: Marks) -> None:
        """What is sent is marked on connections of its own, a transaction each time."""
        if marks not in self._marks:
            self._marks.append(marks)
        self._before_transaction()

    @property
    def _in_transaction(self) -> bool:
        """Then it must not stand: others would wait for it. A connection that is kept for marks is in none."""
        kept = sum(len(marks._free) for marks in self._marks)  # noqa: SLF001 -- one thread sends, so all are free now
        return bool(self._pool.checkedout() > kept)  # type: ignore[attr-defined]

    def _before_transaction(self) -> None:
        if not self._in_transaction:
            self.stand("transaction")
        if self.killed:
            raise Killed
        if self.cut_after > 0:
            self.cut_after -= 1
        elif self.cut > 0:
            self.cut -= 1
            self.interrupt()
            msg = "The database is cut off."
            raise LedgerError(msg)

    def reads_again(self, token_ids: Collection[str], read: Callable[[Collection[str]], pd.DataFrame]) -> pd.DataFrame:
        """Resolve, and remember what there was to see."""
        if not self._in_transaction:
            self.stand("reading")
        assert self._clock_read is not None
        self._seen = self.wire.truth.seen(decided_at=self._clock_read)
        return read(token_ids)

    def writes(self, recipient: Recipient, tokens: tuple[TokenFacts, ...], said_at: datetime) -> None:
        """A letter has been rendered."""
        assert self._seen is not None
        self._letter = ResolvedNotice(recipient=recipient, tokens=tokens, said_at=said_at, seen=self._seen)

    def addresses(self, message_id: str, envelope: Envelope) -> None:
        """The letter has got its envelope."""
        assert self._letter is not None
        self._letter.message_id = message_id
        self._written[envelope] = self._letter

    def sends(self, envelope: Envelope) -> Outcome:
        """The message goes to the socket; the relay answers as the story wants."""
        attempt = self.wire.handed_over(self, self._written[envelope], envelope)
        attempt.interrupted = self.given_up
        self._last = attempt
        self.stand("socket")
        answer = self.wire.next_answer()
        attempt.answer, attempt.arrived = answer, answer.arrives
        self.stand("answered")
        if answer in OUTCOMES:
            return OUTCOMES[answer]
        msg = f"The relay says {answer.value}."
        if answer is Answer.TROUBLE_AT_RECIPIENT:
            raise RecipientInTroubleError(msg, OUTCOMES[Answer.DEFERRED], may_pass=False)
        raise RelayError(msg, may_pass=answer is Answer.TROUBLE_THAT_PASSES)


_WATCHED: Final[WeakKeyDictionary[Engine, Worker]] = WeakKeyDictionary()
_count = Marks.count


def _watched_count(marks: Marks, statement: Statement, values: Mapping[str, Value]) -> int:
    worker = _WATCHED.get(marks._engine)  # noqa: SLF001 -- which process this is
    if worker is not None:
        worker.marks(marks)
    return _count(marks, statement, values)


Marks.count = _watched_count  # type: ignore[assignment, method-assign]


class _Watched:
    """The real source; a second read is seen by its worker."""

    def __init__(self, worker: Worker, parts: Pipeline) -> None:
        self._worker, self._source = worker, parts.source

    def snapshot(self, window: Any) -> Iterator[pd.DataFrame]:  # noqa: ANN401 -- passed on
        return self._source.snapshot(window)

    def resolve(self, token_ids: Collection[str]) -> pd.DataFrame:
        return self._worker.reads_again(token_ids, self._source.resolve)


class _Press:
    """The real renderer and serialiser, which tell their worker what is being written."""

    def __init__(self, worker: Worker, parts: Pipeline) -> None:
        self._worker, self._renderer, self._serialiser = worker, parts.renderer, parts.serialiser
        self.domain = parts.serialiser.domain

    def render(self, recipient: Recipient, tokens: tuple[TokenFacts, ...], *, now: datetime) -> Content:
        self._worker.writes(recipient, tokens, now)
        return self._renderer.render(recipient, tokens, now=now)

    def envelope(self, content: Content, recipient: Recipient, *, message_id: str, at: datetime) -> Envelope:
        envelope = self._serialiser.envelope(content, recipient, message_id=message_id, at=at)
        self._worker.addresses(message_id, envelope)
        return envelope


class _Relay:
    """In the place of SMTP, which has tests of its own: here the relay must answer, and be slow, at a word."""

    rate = RateLimit(None)

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def connect(self) -> "_Relay":
        return self

    def send(self, envelope: Envelope, *, following: Envelope | None = None) -> Outcome:  # noqa: ARG002 -- a relay without PIPELINING
        return self._worker.sends(envelope)

    def close(self) -> None:
        pass
