"""What a worker sees of the story, and what must hold: after each run, and always."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Final

import pandas as pd
from hypothesis.stateful import RuleBasedStateMachine, invariant
from state_machine.house import House, Row
from state_machine.strategies import BEGINNING, DAY, LADDERS, MICRO, STALL
from state_machine.truth import (
    MAX_ATTEMPTS,
    REDIRECT_TO,
    Answer,
    Attempt,
    Key,
    Line,
    Person,
    Setting,
    Token,
    Truth,
    domain_of,
    reach_of,
    reached,
    today,
)
from state_machine.worker import ResolvedNotice, Worker

from token_pipelines.envelope import Envelope
from token_pipelines.errors import LedgerError, RelayError, TokenPipelinesError
from token_pipelines.model import Mode, to_micros
from token_pipelines.planning import Share
from token_pipelines.tiers import Before

DAYS_OF_REFUSALS: Final = 3
OPEN_TRIP: Final = "SELECT max(new_notices) FROM token_pipelines.fuse_trips WHERE mode = %s AND approved_at IS NULL"


@dataclass(frozen=True, kw_only=True)
class Punctual:
    """A whole run that ended well on its day and in time, and the world as it was then."""

    day: date
    at: datetime
    setting: Setting
    attempts: int
    tokens: dict[str, Token]
    people: dict[str, Person]
    suppressed: frozenset[str]


class Checks(RuleBasedStateMachine):
    """What a story has come to, and the checks that hold it to its promises."""

    def __init__(self, house: House) -> None:
        super().__init__()
        self.house = house
        self.truth = Truth(now=BEGINNING)
        self.setting = Setting(tiers=LADDERS[0])
        self.script: list[Answer] = []
        self.workers: list[Worker] = []  # those that stand somewhere
        self.dead: dict[str, bool] = {}  # runs that were killed or given up -> whether the orchestrator says so
        self.runs = 0
        self.issued = 0
        self.snapshots: dict[date, pd.DataFrame] = {}
        self.tripped: dict[Mode, int] = {}  # how many notices were new
        self.suppressed_by_hand: set[str] = set()
        self.silent: set[str] = set()  # dead runs whose lease has expired_leases
        self.violations: list[str] = []
        self.punctual: Punctual | None = None

    # ---------------------------------------------------------------- what a worker sees of the story

    def coming_answer(self) -> Answer:
        return self.script[0] if self.script else Answer.SENT

    def next_answer(self) -> Answer:
        return self.script.pop(0) if self.script else Answer.SENT

    def has_ended(self, run_id: str) -> bool:
        return self.dead.get(run_id, False)

    def planned(self, worker: Worker, shares: dict[str, Share], snapshot: pd.DataFrame) -> None:
        """Nothing is planned while the fuse has tripped, until a person approves it or raises the limit.

        After a planning of all tiers, each person with something due has exactly one waiting notice.
        """
        mode = worker.setting.mode
        approved = worker.job.approve or self.tripped.get(mode, 0) <= worker.setting.max_notices
        self._expect(approved, f"{worker.run_id} planned; the fuse has tripped")
        self.tripped.pop(mode, None)
        self.snapshots[worker.job.day] = snapshot
        if set(worker.job.tiers) != {tier.name for tier in worker.setting.tiers}:
            return
        over = self.truth.now - max(tier.span for tier in worker.setting.tiers) - 2 * DAY
        waiting = Counter(
            row.recipient_id
            for row in self.house.rows()
            if row.mode is mode and row.state in {"planned", "deferred"} and _held(row) and row.planned_at > over
        )
        planned = sum(share.planned for share in shares.values())
        self._expect(planned == len(worker.planned_for), f"{worker.run_id} says that it planned {planned} notices")
        for recipient_id in worker.planned_for:
            self._expect(waiting[recipient_id] == 1, f"{recipient_id} has {waiting[recipient_id]} notices waiting")

    def fuse_tripped(self, worker: Worker) -> None:
        mode = worker.setting.mode
        [(new,)] = self.house.connection.execute(OPEN_TRIP, [str(mode)])
        self._expect(new > worker.setting.max_notices, f"{worker.run_id}: {new} notices do not trip the fuse")
        self._expect(not worker.job.approve, f"{worker.run_id}: the fuse has tripped, though it was approved")
        self.tripped[mode] = new

    def handed_over(self, worker: Worker, letter: ResolvedNotice, envelope: Envelope, *, marked: bool) -> Attempt:
        """What is on the socket is true, urgent as the present, and goes where it should.

        Before its text is, the notice is marked; what the relay refuses before that never was.
        """
        row = next(row for row in self.house.rows() if row.message_id == letter.message_id)
        earlier = [attempt for attempt in self.truth.attempts if attempt.message_id == letter.message_id]
        thresholds = {(token_id, expires): threshold for token_id, expires, threshold, _ in row.lines}
        promised = {token_id for token_id, _, _, released in row.lines if not released}
        said = {token.token_id for token in letter.tokens}
        about = f"{worker.run_id}, notice {row.notice_id}"
        self._expect(said == promised if not earlier else said <= promised, f"{about}: says {said}, not {promised}")
        state = "sending" if marked else "claimed"
        self._expect(row.state == state and row.claimed_by == worker.run_id, f"{about}: sent while {row.state}")
        self._expect(row.mode is worker.setting.mode, f"{about}: sent as {worker.setting.mode}")
        lines = []
        for facts in letter.tokens:
            threshold = thresholds.get((facts.token_id, to_micros(facts.expires_at)))
            if threshold is None:
                self._expect(threshold is not None, f"{about}: token {facts.token_id} was not planned with this expiry")
                continue
            key = Key(facts.token_id, row.recipient_id, facts.expires_at)
            lines.append(Line(key, datetime(1970, 1, 1, tzinfo=UTC) + threshold * MICRO))
        for line in lines:
            self._check_said(worker, letter, envelope, line, about)
        perhaps = [a for a in earlier if a.arrived or a.answer is None or a.answer.leaves_doubt]
        self._expect(all(a.in_doubt for a in earlier if a.arrived), f"{about}: was sent for certain already")
        self._expect(len(perhaps) < MAX_ATTEMPTS, f"{about}: sent again {len(perhaps)} times")
        self._expect(not perhaps or worker.setting.on_unknown == "resend", f"{about}: sent again under hold")
        attempt = Attempt(
            order=len(self.truth.attempts),
            at=self.truth.now,
            run_id=worker.run_id,
            mode=row.mode,
            message_id=row.message_id,
            recipient_id=row.recipient_id,
            address=envelope.recipient,
            lines=tuple(lines),
            again=row.claimed_from == "unknown",
            stalled=self.truth.now - letter.seen.now > STALL,
        )
        self.truth.attempts.append(attempt)
        return attempt

    def _check_said(self, worker: Worker, letter: ResolvedNotice, envelope: Envelope, line: Line, about: str) -> None:
        """Against what the sender has just read. What changed since then, no sender can know."""
        seen, setting = letter.seen, worker.setting
        about = f"{about}: {line}"
        token = seen.tokens.get(line.key.token_id)
        person = seen.people.get(line.key.recipient_id)
        if token is None or person is None:
            self._expect(token is not None and person is not None, f"{about} is gone")
            return
        self._expect(not token.revoked, f"{about} is revoked")
        self._expect(token.expires_at == line.key.expires_at, f"{about} was renewed")
        self._expect(person.recipient_id in token.owners, f"{about} is not theirs")
        self._expect(setting.address(person) == envelope.recipient, f"{about} may not go to this address")
        self._expect(setting.opens(person.recipient_id), f"{about} is outside the rollout")
        if line.says_expired:
            self._expect(token.expires_at <= letter.said_at, f"{about} is said to have expired, and lives")
        else:
            self._expect(token.expires_at > letter.said_at, f"{about} is said to expire, and is dead")
            self._expect(token.expires_at > seen.now, f"{about} is told as expiring after its death")
        told_before = seen.told_before.get(setting.mode)
        self._expect(told_before is None or line.threshold >= told_before, f"{about} was marked as told")
        present = reached(token, setting.tiers, seen.now, reach_of(today(seen.now), seen.now))
        self._expect(present is None or present <= line.threshold, f"{about} is stale, {present} is reached")

    def tier_done(self, worker: Worker, tier: str, trouble: TokenPipelinesError | None) -> None:
        """A tier fails by trouble of the relay or the database only. Refusals are believed if others were accepted."""
        self._expect(
            trouble is None or isinstance(trouble, RelayError | LedgerError), f"{worker.run_id}, {tier}: {trouble}"
        )
        mine = [a for a in self.truth.attempts[worker.attempts_before :] if a.run_id == worker.run_id]
        worker.attempts_before = len(self.truth.attempts)
        refused = [a for a in mine if a.answer is not None and a.answer.refuses and not a.again]
        accepted = {domain_of(a.address) for a in mine if a.answer is Answer.SENT}
        is_one_domain = len({domain_of(a.address) for a in mine}) == 1
        are_few = 2 * len({a.message_id for a in refused}) <= len({a.message_id for a in mine})
        for attempt in refused:
            others = accepted - {domain_of(attempt.address)}
            is_proven = are_few and bool(accepted if is_one_domain else others)
            attempt.believed = is_proven or self._is_repeated(attempt)

    def _is_repeated(self, refused: Attempt) -> bool:
        """Refused on three days, while the relay accepted somebody."""
        recorded = [a for a in self.truth.attempts if a.mode is refused.mode and not a.interrupted]
        same = [
            a
            for a in recorded
            if a.recipient_id == refused.recipient_id and a.address == refused.address
            if a.answer is not None and a.answer.refuses and not a.again
        ]
        first = min(a.at for a in same)
        was_accepting = any(a.answer is Answer.SENT and a.at >= first for a in recorded)
        return len({today(a.at) for a in same}) >= DAYS_OF_REFUSALS and was_accepting

    def _expect(self, holds: bool, otherwise: str) -> None:  # noqa: FBT001 -- an assertion
        """Keep a violation: on a sender's thread the product would take an AssertionError for a letter's fault."""
        if not holds:
            self.violations.append(otherwise)

    # ---------------------------------------------------------------- what must hold after a run

    def _check_whole_run(self, worker: Worker) -> None:
        """Whoever could be told what is due was told, or the relay has just said no: nothing is ever used up."""
        setting = worker.setting
        rows = self.house.rows()
        self._learn_suppressions()
        # One that was given up and lives may have signed on again since.
        others = {other.run_id for other in self.workers} | self._not_yet_known_dead()
        busy = [row for row in rows if row.claimed_by is not None]
        assert {row.claimed_by for row in busy} <= others, "a dead run keeps its claims"
        held = {(row.recipient_id, token_id) for row in busy for token_id, *_ in row.lines}
        tried = [attempt for attempt in self.truth.attempts if attempt.run_id == worker.run_id]
        debts = list(self.truth.debts(setting, reach_of(worker.job.day, self.truth.now)))
        for line, address in debts:
            if (line.key.recipient_id, line.key.token_id) in held or self.truth.told(line, setting.mode):
                continue
            just_tried = any(other.key == line.key for attempt in tried for other in attempt.lines)
            assert just_tried or self._refused(line, address, setting.mode), f"nobody was told of {line}"
        owed = {line for line, _ in debts}
        for row in rows:
            if row.mode is not setting.mode or row.state != "unknown" or setting.on_unknown == "hold":
                continue
            lines = set(_lines(row))
            told = any(a.message_id != row.message_id for line in lines for a in self.truth.told(line, setting.mode))
            if row.attempts < MAX_ATTEMPTS and lines <= owed and not told:
                assert any(a.message_id == row.message_id for a in tried), f"{row} is in doubt and was not sent again"

    def _not_yet_known_dead(self) -> set[str]:
        """Runs that were killed a moment ago: neither their lease nor the orchestrator says so yet."""
        return {run_id for run_id, known in self.dead.items() if not known and run_id not in self.silent}

    def _refused(self, line: Line, address: str, mode: Mode) -> bool:
        return any(
            attempt.mode is mode and attempt.address == address and attempt.believed
            for attempt in self.truth.attempts
            if attempt.answer is not None and attempt.answer.refuses
            if any(other.key == line.key and other.threshold >= line.threshold for other in attempt.lines)
        )

    def _learn_suppressions(self) -> None:
        """An address is suppressed by hand, or because the relay has credibly said that it does not exist."""
        addresses = {person.address for person in self.truth.people.values() if person.address} | {REDIRECT_TO}
        addresses |= {attempt.address for attempt in self.truth.attempts}
        with self.house.ledger() as ledger:
            hashes = {ledger.hash_address(address): address for address in addresses}
            self.truth.suppressed = {hashes[found] for found in ledger.suppressions.among(list(hashes))}
        dead = {a.address for a in self.truth.attempts if a.answer is Answer.DEAD_ADDRESS and a.believed}
        assert self.truth.suppressed <= dead | self.suppressed_by_hand

    def _check_punctual(self, day: date, worker: Worker) -> None:
        """Between two runs on time, no threshold passes of which nobody was told before it passed."""
        last, self.punctual = self.punctual, None
        if worker.trouble is not None or self.workers or self._not_yet_known_dead():
            return
        if last is not None and last.day == day - DAY and last.setting == worker.setting:
            self._check_notice_given(last)
        self.punctual = Punctual(
            day=day,
            at=self.truth.now,
            setting=worker.setting,
            attempts=sum(a.run_id != worker.run_id for a in self.truth.attempts),
            tokens=dict(self.truth.tokens),
            people=dict(self.truth.people),
            suppressed=frozenset(self.truth.suppressed),
        )

    def _check_notice_given(self, last: Punctual) -> None:
        now = self.truth.now
        since = self.truth.attempts[last.attempts :]
        unlucky = {line.key for a in since if a.answer is not Answer.SENT or a.interrupted for line in a.lines}
        was = replace(self.truth, now=last.at, suppressed=set(last.suppressed), tokens={}, people=self.truth.people)
        for tier in last.setting.tiers:
            for token in last.tokens.values():
                threshold = token.expires_at - tier.longest_lead
                if not isinstance(tier, Before) or not last.at < threshold <= now:
                    continue
                if self.truth.tokens.get(token.token_id) != token:
                    continue
                if token.expires_at - token.created_at <= tier.before:
                    continue
                was.tokens = {token.token_id: token}
                for line, address in was.debts(last.setting, now + MICRO):
                    person = line.key.recipient_id
                    if line.key in unlucky or self.truth.people[person] != last.people[person]:
                        continue
                    if self._refused(line, address, last.setting.mode):
                        continue
                    told = self.truth.told(replace(line, threshold=threshold), last.setting.mode)
                    assert any(a.arrived and a.at <= threshold for a in told), f"{tier.name} was late for {line.key}"

    # ---------------------------------------------------------------- what must hold always

    @invariant()
    def nothing_was_seen_that_must_not_be(self) -> None:
        assert not self.violations, "; ".join(self.violations)

    @invariant()
    def once(self) -> None:
        """One notice for each (token, recipient, expiry, threshold) and mode; a second copy is the same message."""
        messages = defaultdict(set)
        for attempt in self.truth.attempts:
            if attempt.arrived:
                for line in attempt.lines:
                    messages[line, attempt.mode].add(attempt.message_id)
        assert [line for line, ids in messages.items() if len(ids) > 1] == []

    @invariant()
    def in_order(self) -> None:
        """Never a less urgent notice after a more urgent one, in the order in which they went to the socket.

        A process that stood still for long between its read and the socket, while its claim held, comes late.
        """
        told: dict[tuple[Key, Mode], list[datetime]] = defaultdict(list)
        for attempt in self.truth.attempts:
            if attempt.arrived and not attempt.stalled:
                for line in attempt.lines:
                    told[line.key, attempt.mode].append(line.threshold)
        for (key, mode), thresholds in told.items():
            assert all(first <= then for first, then in pairwise(thresholds)), f"{key} in {mode}: {thresholds}"

    @invariant()
    def the_ledger_is_true(self) -> None:
        """What it calls sent has arrived; what it calls anything else but in doubt or being sent has not."""
        arrived = {attempt.message_id for attempt in self.truth.attempts if attempt.arrived}
        promises: Counter[tuple[object, ...]] = Counter()
        for row in self.house.rows():
            where = row.claimed_from if row.state == "claimed" else row.state
            if where == "sent":
                assert row.message_id in arrived, f"{row} has not arrived"
            elif where not in {"sending", "unknown"}:
                assert row.message_id not in arrived, f"{row} has arrived"
            if row.claimed_by is not None:
                known = {worker.run_id for worker in self.workers} | set(self.dead)
                assert row.claimed_by in known, f"{row} belongs to nobody"
            promises.update((row.mode, row.recipient_id, *line[:3]) for line in row.lines if not line[3])
        assert [promise for promise, count in promises.items() if count > 1] == []


def _held(row: Row) -> bool:
    return any(not released for *_, released in row.lines)


def _lines(row: Row) -> Iterator[Line]:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    for token_id, expires, threshold, released in row.lines:
        if not released:
            yield Line(Key(token_id, row.recipient_id, epoch + expires * MICRO), epoch + threshold * MICRO)
