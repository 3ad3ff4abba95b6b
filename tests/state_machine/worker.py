"""A process that runs the product's code and stands still wherever it touches the world, until it is told to go on.

It stops before each transaction of the ledger, before it reads the source again, before a message goes to the socket
and after the relay has answered. While it stands, anything may happen: another process may run, a day may pass, it may
be killed. What it runs are the three steps of `day`, in the order of `run_day`.
"""

import socket
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any, Final, Protocol, Self
from weakref import WeakKeyDictionary

import pandas as pd
from sqlalchemy import Connection, Engine, PoolProxiedConnection
from state_machine.house import House
from state_machine.truth import Answer, Attempt, Seen, Setting, Truth

from token_pipelines.day import collect, plan_notices, read_tokens, send_share
from token_pipelines.delivery.counts import TierReport
from token_pipelines.delivery.resolving import ResolvedNotice as Resolved
from token_pipelines.delivery.resolving import resolve
from token_pipelines.envelope import Envelope
from token_pipelines.errors import FuseTripped, LedgerError, TokenPipelinesError
from token_pipelines.ledger.planning import Plan, Planning
from token_pipelines.ledger.settlement import Record, Settlement
from token_pipelines.mail.rendering import Content
from token_pipelines.model import Notice, Outcome, Recipient, Stage, State, TokenFacts
from token_pipelines.pipeline import Pipeline
from token_pipelines.planning import Share, SnapshotCounts
from token_pipelines.smtp.answers import Lost, RelayTroubleError, explain
from token_pipelines.smtp.conversation import Conversation, Step, Wants
from token_pipelines.smtp.rate import RateLimit

OUTCOMES: Final = {
    Answer.SENT: Outcome(state=State.SENT, stage=Stage.DOT, code=250, queue_id="q"),
    Answer.DEFERRED: Outcome(state=State.DEFERRED, stage=Stage.RCPT, code=451, enhanced="4.2.2"),
    Answer.DEAD_ADDRESS: Outcome(
        state=State.FAILED, stage=Stage.RCPT, code=550, enhanced="5.1.1", address_is_dead=True
    ),
    Answer.REFUSED: Outcome(state=State.FAILED, stage=Stage.RCPT, code=554, enhanced="5.2.1"),
    Answer.TROUBLE: Outcome(state=State.DEFERRED, stage=Stage.MAIL, code=530),
    Answer.TROUBLE_AT_RECIPIENT: Outcome(state=State.DEFERRED, stage=Stage.RCPT, code=550, enhanced="5.7.1"),
    Answer.LOST_AFTER_ARRIVAL: Outcome(state=State.UNKNOWN, stage=Stage.DOT),
    Answer.LOST_BEFORE_ARRIVAL: Outcome(state=State.UNKNOWN, stage=Stage.DOT),
}

BEFORE_THE_TEXT: Final = frozenset(
    {Answer.DEFERRED, Answer.DEAD_ADDRESS, Answer.TROUBLE, Answer.TROUBLE_AT_RECIPIENT, Answer.TROUBLE_THAT_PASSES}
)
"""What a relay may say to the commands before a message. What it has not said by then, it says to the message."""

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

    def coming_answer(self) -> Answer: ...

    def next_answer(self) -> Answer: ...

    def handed_over(self, worker: "Worker", letter: ResolvedNotice, envelope: Envelope, *, marked: bool) -> Attempt: ...

    def planned(self, worker: "Worker", shares: dict[str, Share], snapshot: pd.DataFrame) -> None: ...

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
    cut_after: int = 0  # this number of transactions find the database,
    cut: int = 0  # and this number after them do not
    attempts_before: int = 0
    planned_for: tuple[str, ...] = ()  # the recipients of the notices that its plan left waiting
    trouble: TokenPipelinesError | None = None
    fault: BaseException | None = None
    place: str = "start"
    _clock_read: datetime | None = None
    _seen: Seen | None = None
    _letter: ResolvedNotice | None = None
    _unrecorded: list[Attempt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._written: dict[Envelope, ResolvedNotice] = {}  # several are written before the first of them is sent
        self._seen_of: dict[str, Seen] = {}  # by Message-ID: a batch is read before the one before it is sent
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
        """What is on the socket, or was answered since the last commit, may never be recorded as it was answered."""
        for attempt in self._unrecorded:
            attempt.interrupted = True

    def has_recorded(self) -> None:
        """A group commit went well: whatever was answered before is on record."""
        self._unrecorded = [attempt for attempt in self._unrecorded if attempt.answer is None]

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
                self.parts = copy(parts)
                self.parts.source = _Watched(self, parts)  # type: ignore[assignment]
                self.parts.renderer = press  # type: ignore[assignment]
                self.parts.serialiser = press  # type: ignore[assignment]
                self.parts.relay = _Relay(self)  # type: ignore[assignment]
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
        """The day's job in the order of `run_day`, with a word to the story after each step."""
        parts, job = self.parts, self.job
        with parts.ledger.heartbeat(self.run_id):
            snapshot = job.snapshot
            if snapshot is None:
                snapshot = collect(parts, read_tokens(parts, day=job.day, counts=SnapshotCounts()))
            try:
                shares = plan_notices(
                    parts,
                    snapshot,
                    day=job.day,
                    tiers=job.tiers,
                    run_id=self.run_id,
                    approved_by=self.run_id if job.approve else None,
                )
            except FuseTripped:
                self.wire.fuse_tripped(self)
                raise
            self.wire.planned(self, shares, snapshot)
            self.attempts_before = len(self.wire.truth.attempts)
            for tier in parts.policy.tiers:
                if tier.name in job.tiers:
                    self._send(shares[tier.name])

    def _send(self, share: Share) -> None:
        trouble = None
        report = TierReport()
        try:
            send_share(self.parts, share, run_id=self.run_id, report=report, has_ended=self.wire.has_ended)
        except TokenPipelinesError as error:
            trouble = error
        self.trouble = self.trouble or trouble
        self.wire.tier_done(self, share.tier, trouble)

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
        connect, raw_connection = engine.connect, engine.raw_connection

        def watched() -> Connection:
            self.before_transaction()
            return connect()

        def raw_and_watched() -> PoolProxiedConnection:
            self.before_transaction()
            return raw_connection()

        self._pool = engine.pool
        engine.connect = watched  # type: ignore[method-assign]
        engine.raw_connection = raw_and_watched  # type: ignore[method-assign]
        _WATCHED[engine] = self
        try:
            yield
        finally:
            del engine.connect, engine.raw_connection, _WATCHED[engine]

    @property
    def _in_transaction(self) -> bool:
        """Then it must not stand: others would wait for it."""
        return bool(self._pool.checkedout())  # type: ignore[attr-defined]

    def before_transaction(self) -> None:
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
        self._seen = self.wire.truth.seen(decided_at=self._clock_read or self._clock())
        return read(token_ids)

    def has_read(self, notices: Collection[Notice]) -> None:
        """The tokens of these have been read again just now."""
        if self._seen is not None:
            self._seen_of |= dict.fromkeys((notice.message_id for notice in notices), self._seen)

    def writes(self, recipient: Recipient, tokens: tuple[TokenFacts, ...], said_at: datetime) -> None:
        """A letter has been rendered."""
        assert self._seen is not None
        self._letter = ResolvedNotice(recipient=recipient, tokens=tokens, said_at=said_at, seen=self._seen)

    def addresses(self, message_id: str, envelope: Envelope) -> None:
        """The letter has got its envelope."""
        assert self._letter is not None
        self._letter.message_id = message_id
        self._letter.seen = self._seen_of[message_id]
        self._written[envelope] = self._letter

    def offers(self, envelope: Envelope) -> Outcome | None:
        """The relay hears whom the message is for; what it says if it wants none of it, as the story wants."""
        if self.wire.coming_answer() not in BEFORE_THE_TEXT:
            return None
        return self._answered(self._handed_over(envelope, marked=False), marked=False)

    def sends(self, envelope: Envelope) -> Outcome:
        """The message goes to the socket; the relay answers as the story wants."""
        attempt = self._handed_over(envelope, marked=True)
        self.stand("socket")
        return self._answered(attempt, marked=True)

    def _handed_over(self, envelope: Envelope, *, marked: bool) -> Attempt:
        attempt = self.wire.handed_over(self, self._written[envelope], envelope, marked=marked)
        attempt.interrupted = self.given_up
        self._unrecorded.append(attempt)
        return attempt

    def _answered(self, attempt: Attempt, *, marked: bool) -> Outcome:
        answer = self.wire.next_answer()
        attempt.answer, attempt.arrived = answer, answer.arrives
        self.stand("answered")
        if answer in OUTCOMES:
            return replace(OUTCOMES[answer], stage=Stage.DOT) if marked else OUTCOMES[answer]
        # After the text it is recorded; before it, no recipient was named, and another connection is tried.
        outcome = OUTCOMES[Answer.DEFERRED] if marked else None
        msg = f"The relay says {answer.value}."
        raise RelayTroubleError(msg, outcome=outcome, may_pass=True, try_again=not marked)


_WATCHED: Final[WeakKeyDictionary[Engine, Worker]] = WeakKeyDictionary()
_settle = Settlement.settle


def _watched_settle(settlement: Settlement, records: Sequence[Record], marks: Mapping[str, datetime]) -> set[str]:
    """A group commit is made on a connection of its own: a transaction each time."""
    worker = _WATCHED.get(settlement._engine)  # noqa: SLF001 -- which process this is
    if worker is not None:
        worker.before_transaction()
    mine = _settle(settlement, records, marks)
    if worker is not None:
        worker.has_recorded()
    return mine


Settlement.settle = _watched_settle  # type: ignore[assignment, method-assign]


def watched_resolve(parts: Pipeline, notices: Sequence[Notice], now: datetime) -> list[Resolved]:
    """As `resolving.resolve`; the worker learns of which notices."""
    resolved = resolve(parts, notices, now)
    if isinstance(parts.source, _Watched):
        parts.source.worker.has_read(notices)
    return resolved


class Inline:
    """In the place of helper threads: everything is done at once, so that what one process does is one sequence."""

    def __init__(self, _connections: int) -> None:
        """As the helpers'."""

    def run(self, work: Callable[..., Any], *args: Any) -> "Future[Any]":  # noqa: ANN401 -- passed on
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args))
        except Exception as error:  # noqa: BLE001 -- as a pool keeps it
            future.set_exception(error)
        return future

    read = run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to be waited for."""


_carry_out = Planning.carry_out


def _watched_plan(planning: Planning, plan: Plan, **more: Any) -> pd.DataFrame:  # noqa: ANN401 -- passed on
    planned = _carry_out(planning, plan, **more)
    worker = _WATCHED.get(planning._connection.engine)  # noqa: SLF001 -- which process this is
    if worker is not None:
        worker.planned_for = tuple(planned["recipient_id"])
    return planned


Planning.carry_out = _watched_plan  # type: ignore[assignment, method-assign]


class _Watched:
    """The real source; a second read is seen by its worker."""

    def __init__(self, worker: Worker, parts: Pipeline) -> None:
        self.worker, self._source = worker, parts.source

    def snapshot(self, window: Any) -> Iterator[pd.DataFrame]:  # noqa: ANN401 -- passed on
        return self._source.snapshot(window)

    def resolve(self, token_ids: Collection[str]) -> pd.DataFrame:
        return self.worker.reads_again(token_ids, self._source.resolve)


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

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.rate = RateLimit(None, clock=lambda: 0.0)  # no time passes, so it is never lowered twice
        self.rate.slow_down = lambda: None  # type: ignore[method-assign] # nor once: nobody waits here

    def explain(self, outcome: Outcome) -> str:
        return explain("stand-in", outcome)

    def connect(self) -> "_Lane":
        return _Lane(self._worker)


class _Lane:
    """A connection whose relay answers at once."""

    has_unsaid = waits = False
    due = 0.0

    def __init__(self, worker: Worker) -> None:
        self._ours, self._theirs = socket.socketpair()
        self._conversation = self._converse(worker)

    def fileno(self) -> int:
        return self._ours.fileno()

    def resume(self, value: object = None) -> Step | None:
        try:
            return self._conversation.send(value)
        except StopIteration:
            return Wants.END

    def close(self) -> None:
        self._conversation.close()
        self._ours.close()
        self._theirs.close()

    quit = close

    @staticmethod
    def _converse(worker: Worker) -> Conversation:
        while (envelope := (yield Wants.MESSAGE)) is not None:
            refusal = worker.offers(envelope)
            if refusal is not None:
                yield refusal
                continue
            outcome = worker.sends((yield Wants.MARK))
            yield outcome
            if outcome.state is State.UNKNOWN:
                raise Lost
