"""What may happen in a story: one rule for each thing that owners, operators, time, workers and the relay do."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, Literal

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from state_machine.checks import Checks
from state_machine.strategies import (
    CHANGES,
    DAY,
    DAYS_BACK,
    HOUR,
    MICRO,
    MOMENTS,
    PAUSES,
    PEOPLE,
    TOKENS_AT_MOST,
    Expiry,
    News,
    answers,
    expiries,
    issues,
    news,
    noticings,
    places,
    some,
)
from state_machine.truth import GRACE, Answer, Person, Token, address_of, run_at, today
from state_machine.worker import Job, Worker

from token_pipelines.errors import FuseTripped
from token_pipelines.model import Mode
from token_pipelines.tiers import After, Tier

WORKERS_AT_MOST: Final = 2


class Story(Checks):
    """The rules tell what may happen; the checks, what must hold then."""

    @initialize(tokens=st.lists(issues, min_size=1, max_size=TOKENS_AT_MOST))
    def begin(self, tokens: list[News]) -> None:
        self.house.clear()
        for recipient_id in PEOPLE:
            self._put(Person(recipient_id=recipient_id, address=address_of(recipient_id)))
        for token in tokens:
            self._issue(token)

    # ---------------------------------------------------------------- what owners, people and operators do

    @precondition(lambda self: self.truth.tokens)
    @rule(index=some, expiry=expiries)
    def renew(self, index: int, expiry: Expiry) -> None:
        self._put(replace(self._token(index), expires_at=self.truth.now + expiry[0] * DAY + expiry[1]))

    @precondition(lambda self: self.truth.tokens)
    @rule(deed=CHANGES)
    def something_changes(self, deed: tuple[Any, ...]) -> None:
        getattr(self, deed[0])(*deed[1:])

    def _put(self, thing: Token | Person) -> None:
        if isinstance(thing, Token):
            self.truth.tokens[thing.token_id] = thing
            self.house.put_token(thing)
        else:
            self.truth.people[thing.recipient_id] = thing
            self.house.put_person(thing)

    def _token(self, index: int) -> Token:
        return list(self.truth.tokens.values())[index % len(self.truth.tokens)]

    def _issue(self, news: News | None) -> None:
        """A token more; the one that expires first makes room for it."""
        if news is None:
            return
        expiry, lifetime, owners = news
        if len(self.truth.tokens) == TOKENS_AT_MOST:
            self._delete(min(self.truth.tokens.values(), key=lambda token: token.expires_at))
        self.issued += 1
        expires_at = self.truth.now + expiry[0] * DAY + expiry[1]
        created_at = min(self.truth.now, expires_at - lifetime)
        self._put(Token(token_id=str(self.issued), created_at=created_at, expires_at=expires_at, owners=owners))

    def _delete(self, token: Token) -> None:
        del self.truth.tokens[token.token_id]
        self.house.drop_token(token.token_id)

    def revoke_or_undo(self, index: int) -> None:
        token = self._token(index)
        self._put(replace(token, revoked=not token.revoked))

    def change_team(self, index: int, owners: frozenset[str]) -> None:
        self._put(replace(self._token(index), owners=owners))

    def delete(self, index: int) -> None:
        self._delete(self._token(index))

    def mark_as_the_older_job_did(self, index: int, ago: timedelta) -> None:
        self._put(replace(self._token(index), last_notified_at=self.truth.now - ago))

    def change_address(self, who: str, number: int) -> None:
        self._put(replace(self.truth.people[who], address=address_of(who, number), verified=True))

    def lose_address(self, who: str, address: str | None) -> None:
        self._put(replace(self.truth.people[who], address=address))

    def verify_or_undo(self, who: str) -> None:
        self._put(replace(self.truth.people[who], verified=not self.truth.people[who].verified))

    def mute_or_undo(self, who: str) -> None:
        self._put(replace(self.truth.people[who], muted=not self.truth.people[who].muted))

    def repair_everything(self) -> None:
        """Nobody is out of reach."""
        self.change_rollout(frozenset(), 100)
        self.house.lift_suppressions()
        self.suppressed_by_hand.clear()
        for who in PEOPLE:
            self._put(Person(recipient_id=who, address=address_of(who, 3)))

    def change_tiers(self, tiers: tuple[Tier, ...]) -> None:
        self.setting = replace(self.setting, tiers=tiers)

    def change_rollout(self, only: frozenset[str], percent: Literal[0, 100]) -> None:
        self.setting = replace(self.setting, only_recipients=tuple(sorted(only)), rollout_percent=percent)

    def redirect_or_live(self) -> None:
        mode = Mode.LIVE if self.setting.mode is Mode.REDIRECT else Mode.REDIRECT
        self.setting = replace(self.setting, mode=mode)

    def resend_or_hold(self) -> None:
        self.setting = replace(self.setting, on_unknown="hold" if self.setting.on_unknown == "resend" else "resend")

    def change_fuse(self, limit: int) -> None:
        self.setting = replace(self.setting, max_notices=limit)

    def suppress(self, who: str) -> None:
        address = self.truth.people[who].address
        if address is not None:
            self.suppressed_by_hand.add(address)
            with self.house.ledger() as ledger:
                ledger.suppressions.add([ledger.hash_address(address)], at=self.truth.now, cause="by hand")

    def mark_notified(self, ago: timedelta) -> None:
        mode, before = self.setting.mode, self.truth.now - ago
        self.truth.told_before[mode] = max(before, self.truth.told_before.get(mode, before))
        with self.house.ledger() as ledger:
            ledger.told.mark_before(before, mode=mode, at=self.truth.now)

    # ---------------------------------------------------------------- time

    @rule(pause=st.one_of(st.sampled_from(PAUSES), st.tuples(st.integers(0, 5), st.sampled_from(MOMENTS))))
    def time_passes(self, pause: timedelta | tuple[int, timedelta]) -> None:
        """For so long; or until the n-th instant from now that decides something, or a moment before or after it."""
        if isinstance(pause, timedelta):
            self.truth.now += pause
            return
        index, moment = pause
        tomorrow = run_at(today(self.truth.now) + DAY)
        instants = [tomorrow, tomorrow + GRACE]
        for token in self.truth.tokens.values():
            for tier in self.setting.tiers:
                threshold = token.expires_at - tier.longest_lead
                instants += [
                    threshold,
                    token.expires_at,
                    *([threshold + tier.within + GRACE] if isinstance(tier, After) else []),
                ]
        instants = sorted({instant + moment for instant in instants if instant + moment > self.truth.now})
        self.truth.now = instants[index % len(instants)]

    # ---------------------------------------------------------------- runs that nobody interrupts

    def _worker(self, tiers: tuple[str, ...], days_back: int = 0, *, approve: bool = False) -> Worker:
        self.runs += 1
        job = Job(day=today(self.truth.now) - days_back * DAY, tiers=tiers, approve=approve)
        return Worker(f"run-{self.runs}", self, self.house, self.setting, job)

    def _all_tiers(self) -> tuple[str, ...]:
        return tuple(tier.name for tier in self.setting.tiers)

    def _run_whole(self, days_back: int = 0, *, approve: bool = False) -> Worker:
        worker = self._worker(self._all_tiers(), days_back, approve=approve)
        known = {row.notice_id for row in self.house.rows()}
        worker.run()
        if isinstance(worker.trouble, FuseTripped):
            assert {row.notice_id for row in self.house.rows()} == known, "planned, though the fuse has tripped"
        elif worker.trouble is None:
            self._check_whole_run(worker)
        return worker

    @rule(news=news, script=answers, days_back=st.sampled_from(DAYS_BACK), approve=st.booleans())
    def run_day(
        self, *, script: Sequence[Answer] = (), news: News | None = None, days_back: int = 0, approve: bool = False
    ) -> None:
        self._issue(news)
        self.script = list(script)
        self._run_whole(days_back, approve=approve)

    @rule(script=answers, late=st.sampled_from((timedelta(0), MICRO, HOUR, GRACE)), days=st.integers(1, 3))
    def run_days_on_time(self, script: list[Answer], late: timedelta, days: int) -> None:
        self.script = list(script)
        for _ in range(days):
            day = today(self.truth.now)
            while run_at(day) + late <= self.truth.now:
                day += DAY
            self.truth.now = run_at(day) + late
            self._check_punctual(day, self._run_whole())

    @rule(index=some, tier=some, script=answers)
    def run_one_tier(self, index: int, tier: int, script: list[Answer]) -> None:
        """Today's, or, from the partition page, that of a day whose file is as old as its run."""
        self.script = list(script)
        names = self._all_tiers()
        worker = self._worker((names[tier % len(names)],))
        if index < len(self.snapshots):
            day = list(self.snapshots)[index]
            worker.job = replace(worker.job, day=day, snapshot=self.snapshots[day])
        worker.run()

    @rule(news=news, script=answers, after=st.integers(1, 40), transactions=st.integers(1, 3))
    def run_while_the_database_is_cut(
        self, news: News | None, script: list[Answer], after: int, transactions: int
    ) -> None:
        self._issue(news)
        self.script = list(script)
        worker = self._worker(self._all_tiers())
        worker.cut_after, worker.cut = after, transactions
        worker.run()
        self.dead[worker.run_id] = True

    # ---------------------------------------------------------------- processes that stand, go on, die

    @precondition(lambda self: len(self.workers) < WORKERS_AT_MOST)
    @rule(news=news, tier=some, place=places, script=answers)
    def start(
        self, *, place: tuple[str, int], news: News | None = None, tier: int = 0, script: Sequence[Answer] = ()
    ) -> None:
        self._issue(news)
        names = self._all_tiers()
        worker = self._worker((names[tier - 6],) if 0 <= tier - 6 < len(names) else names)
        worker.start()
        self.workers.append(worker)
        self._go_on(worker, place, script)

    @precondition(lambda self: self.workers)
    @rule(index=some, place=places, script=answers)
    def go_on(self, index: int, place: tuple[str, int], script: Sequence[Answer] = ()) -> None:
        self._go_on(self.workers[index % len(self.workers)], place, script)

    @precondition(lambda self: self.workers)
    @rule(index=some, script=answers)
    def go_on_to_the_end(self, index: int, script: Sequence[Answer] = ()) -> None:
        self._go_on(self.workers[index % len(self.workers)], ("end", 1), script)

    def _go_on(self, worker: Worker, place: tuple[str, int], script: Sequence[Answer] = ()) -> None:
        """To the n-th such place, or to the end."""
        name, nth = place
        self.script = list(script)
        left = iter(range(nth - 1))
        worker.go_on(lambda found: found == name and next(left, None) is None)
        if worker.finished:
            self.workers.remove(worker)

    @rule(news=news, place=places, script=answers, noticed=noticings)
    def run_and_die(
        self, *, place: tuple[str, int], noticed: str, news: News | None = None, script: Sequence[Answer] = ()
    ) -> None:
        self._issue(news)
        worker = self._worker(self._all_tiers())
        worker.start()
        self.workers.append(worker)
        self._go_on(worker, place, script)
        if not worker.finished:
            self._kill(worker, noticed)

    @precondition(lambda self: self.workers)
    @rule(index=some, noticed=noticings)
    def kill(self, index: int, noticed: str) -> None:
        self._kill(self.workers[index % len(self.workers)], noticed)

    def _kill(self, worker: Worker, noticed: str) -> None:
        worker.kill()
        self.workers.remove(worker)
        self.dead[worker.run_id] = self.dead.get(worker.run_id, False) or noticed == "orchestrator"
        if noticed == "lease":
            self._silence(worker.run_id)

    @precondition(lambda self: self.workers)
    @rule(index=some, by_lease=st.booleans())
    def give_up_a_living(self, index: int, by_lease: bool) -> None:  # noqa: FBT001 -- hypothesis draws it
        """Its machine was suspended: it counts as dead, and goes on later as if nothing had been."""
        worker = self.workers[index % len(self.workers)]
        worker.give_up()
        self.dead[worker.run_id] = not by_lease
        if by_lease:
            self._silence(worker.run_id)

    def notice_the_dead(self) -> None:
        for run_id in self.dead:
            self._silence(run_id)

    def _silence(self, run_id: str) -> None:
        self.silent.add(run_id)
        self.house.silence(run_id)

    def teardown(self) -> None:
        """Let everybody die, put the fuse in, and run once more: every debt is paid."""
        for worker in self.workers:
            worker.kill()
            self.dead[worker.run_id] = True
        self.workers.clear()
        self.dead = dict.fromkeys(self.dead, True)
        self.script = []
        self._run_whole(approve=True)
        self.nothing_was_seen_that_must_not_be()
        self.once()
        self.in_order()
        self.the_ledger_is_true()
