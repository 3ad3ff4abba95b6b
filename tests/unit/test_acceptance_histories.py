"""Days of sending to relays that are broken, picky or slow: who is told, who is believed dead, how often it is tried.

The model has no sockets and a clock of its own. What it runs is the product's: how answers are read, whose trouble a
refusal is, when a run stops, the rate, and the order of people.
"""

import os
import random
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from token_pipelines.delivery.acceptance import DAYS, IN_A_ROW, Acceptance
from token_pipelines.ledger.refusals import RefusedBefore
from token_pipelines.ledger.settlement import Record
from token_pipelines.model import Outcome, Stage, State
from token_pipelines.smtp.answers import accepted, asks_for_less, explain, refused
from token_pipelines.smtp.rate import RateLimit
from token_pipelines.smtp.session import reply

HISTORIES: Final = int(os.environ.get("ACCEPTANCE_HISTORIES", "300"))
START: Final = datetime(2026, 11, 20, 9, tzinfo=UTC)
PASSES: Final = 3
CONNECTIONS: Final = 4
RUN_LASTS_AT_MOST: Final = 3600.0

BROKEN: Final = {
    "550 5.1.1 no such user": Stage.RCPT,
    "550 relay not permitted": Stage.RCPT,
    "550 Sender verify failed": Stage.RCPT,
    "504 5.5.2 need fully-qualified hostname": Stage.RCPT,
    "530 Authentication required": Stage.MAIL,
    "554 5.7.1 listed": Stage.DOT,
    "451 4.3.0 out of order": Stage.RCPT,
    "421 4.3.2 going down": Stage.RCPT,
}
DEAD: Final = "550 5.1.1 no such user"
POLICY: Final = "550 5.7.133 sender not authenticated for this mailbox"
THROTTLED: Final = "454 4.7.0 Throttling failure: Maximum sending rate exceeded"


@dataclass
class Person:
    """Someone to be told, and what the ledger knows of them."""

    name: str
    domain: str
    is_dead: bool = False
    is_refused_by_policy: bool = False
    state: State = State.PLANNED
    tries: int = 0
    days_refused: set[int] = field(default_factory=set)

    @property
    def waits(self) -> bool:
        return self.state in {State.PLANNED, State.DEFERRED}


@dataclass
class World:
    """A relay and the people behind it. ``now`` is in seconds."""

    people: list[Person]
    broken: str | None
    broken_days: int
    per_second: int | None
    rng: random.Random
    now: float = 0.0
    attempts: int = 0
    accepted_on: set[int] = field(default_factory=set)
    takes: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))

    def answer(self, person: Person, day: int) -> Outcome:
        """What the relay says now to a message for this person."""
        self.attempts += 1
        if self.broken is not None and day < self.broken_days:
            return _outcome(self.broken, BROKEN[self.broken])
        if person.is_dead:
            return _outcome(DEAD, Stage.RCPT)
        if person.is_refused_by_policy:
            return _outcome(POLICY, Stage.RCPT)
        if self.per_second is not None:
            if self.takes[int(self.now)] >= self.per_second:
                return _outcome(THROTTLED, Stage.DOT)
            self.takes[int(self.now)] += 1
        self.accepted_on.add(day)
        return accepted(reply(Stage.DOT, 250, "ok"))


def _outcome(answer: str, stage: Stage) -> Outcome:
    return refused("relay", reply(stage, int(answer[:3]), answer[4:]))


def run(world: World, day: int) -> Acceptance:
    """One day's run, as `delivery` does it."""
    acceptance = Acceptance(lambda outcome: explain("relay", outcome))
    rate = RateLimit(None, clock=lambda: world.now)
    waiting = [person for person in world.people if person.waits]
    world.rng.shuffle(waiting)
    waiting.sort(key=lambda person: person.tries)
    for person in waiting:
        acceptance.expect(person.domain)
    began = world.now
    for number in range(RUN_PASSES):
        before = acceptance.accepted
        waiting = _send(world, day, waiting, acceptance, rate)
        is_over = world.now - began > RUN_LASTS_AT_MOST or acceptance.stopped_by is not None
        if not waiting or is_over or (number >= PASSES - 1 and acceptance.accepted == before):
            break
        world.now += 8
    _believe(world, day, acceptance)
    return acceptance


RUN_PASSES: Final = 200


def _send(world: World, day: int, people: list[Person], acceptance: Acceptance, rate: RateLimit) -> list[Person]:
    """One pass over several connections; gives those who were put off."""
    to_try = list(reversed(people))
    put_off: list[Person] = []
    under_way: list[tuple[Person, int | None]] = []
    while to_try or under_way:
        while to_try and len(under_way) < CONNECTIONS and acceptance.stopped_by is None and rate.take_at_once():
            under_way.append((to_try.pop(), acceptance.begin()))
        if not under_way:
            if acceptance.stopped_by is not None:
                break
            world.now += max(rate.seconds_left(), 1e-6)
            continue
        person, begun_in = under_way.pop(0)
        world.now += 0.001
        outcome = world.answer(person, day)
        _keep(person, outcome, day, put_off)
        is_excused = asks_for_less(outcome) and not rate.is_lowest
        if outcome.state is State.SENT:
            rate.speed_up()
        elif asks_for_less(outcome):
            rate.slow_down()
        record = Record(notice_id=person.name, outcome=outcome, at=START, address_hash=b"")
        acceptance.keep(record, outcome, domain=person.domain, begun_in=begun_in, is_excused=is_excused)
    return put_off


def _keep(person: Person, outcome: Outcome, day: int, put_off: list[Person]) -> None:
    person.tries += 1
    person.state = State.SENT if outcome.state is State.SENT else State.DEFERRED
    if outcome.state is State.FAILED:
        person.days_refused.add(day)
    elif outcome.state is State.DEFERRED and (outcome.code is None or outcome.code < 500):
        put_off.append(person)


def _believe(world: World, day: int, acceptance: Acceptance) -> None:
    before = {
        person.name: RefusedBefore(
            days=len(person.days_refused),
            is_accepting=any(min(person.days_refused) <= other <= day for other in world.accepted_on),
        )
        for person in world.people
        if person.days_refused
    }
    names = {record.notice_id for record in acceptance.believed(before)}
    for person in world.people:
        if person.name in names:
            person.state = State.FAILED


def all_told(world: World) -> bool:
    """Whether everybody was told whose mailbox takes our messages."""
    return all(person.state is State.SENT or person.is_dead or person.is_refused_by_policy for person in world.people)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """People over a few domains, some of them unreachable; a relay that may be broken for days, or slow."""
    count = draw(st.integers(1, 120))
    domains = [f"d{number}.example" for number in range(draw(st.integers(1, 6)))]
    rng = random.Random(draw(st.integers(0, 2**32)))  # noqa: S311 -- no secret
    people = [Person(f"p{number}", rng.choice(domains)) for number in range(count)]
    dead_domain = draw(st.sampled_from([None, *domains]))
    for person in rng.sample(people, draw(st.integers(0, count))):
        person.is_dead = True
    for person in rng.sample(people, draw(st.integers(0, count // 4))):
        person.is_refused_by_policy = True
    for person in people:
        person.is_dead |= person.domain == dead_domain
    broken = draw(st.sampled_from([None, None, *BROKEN]))
    per_second = draw(st.sampled_from([None, None, 1, 14]))
    return World(people, broken, draw(st.integers(1, 6)), per_second, rng)


@given(worlds())
@settings(max_examples=HISTORIES, deadline=None, suppress_health_check=list(HealthCheck))
def test_histories(world: World) -> None:
    """Nobody living is given up, a broken relay is not stormed, and all are told as soon as the relay works."""
    day = 0
    if world.broken is not None:
        for day in range(world.broken_days):
            before = world.attempts
            acceptance = run(world, day)
            tries = world.attempts - before
            assert tries <= IN_A_ROW + CONNECTIONS
            assert acceptance.trouble is not None or len(world.people) < DAYS or acceptance.stopped_by is not None
            assert not any(person.state is State.FAILED for person in world.people), "nobody was accepted"
        day += 1
    acceptance = run(world, day)
    if acceptance.stopped_by is None:
        assert all_told(world)
    else:  # chance has put so many of the unreachable first, that they could not be told from a broken relay
        assert sum(person.is_dead or person.is_refused_by_policy for person in world.people) >= IN_A_ROW
        first = day + 1
        for day in range(first, first + len(world.people)):
            if all_told(world):
                break
            run(world, day)
        assert all_told(world)
    for later in range(day + 1, day + 1 + DAYS):
        run(world, later)
    for person in world.people:
        if person.state is State.FAILED:
            assert person.is_dead
    if world.accepted_on:
        assert_dead_are_believed(world, day + 1 + DAYS)


def assert_dead_are_believed(world: World, day: int) -> None:
    """Where somebody is still accepted, three days of refusals are enough."""
    stranger = Person("stranger", "elsewhere.example")
    world.people.append(stranger)
    for later in range(day, day + DAYS):
        stranger.state = State.PLANNED
        run(world, later)
    for person in world.people:
        if person.state is not State.FAILED and len(person.days_refused) >= DAYS:
            days = range(min(person.days_refused), max(person.days_refused) + 1)
            assert not any(accepted in days for accepted in world.accepted_on)
