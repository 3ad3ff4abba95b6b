"""What the chaos came to, counted from what the relay accepted. The ledger is only asked to explain it."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

from chaos.registry import Population

IN_FLIGHT = timedelta(seconds=8)
"""How long after a sleep a message that was marked before it may be accepted: it may have to reconnect."""


UNKNOWN = "unknown"
CHANGED = "unknown, with other bytes"
UNEXPLAINED = "unexplained"


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A message that the relay accepted. ``tokens`` are the names in its text."""

    recipient_id: str
    message_id: str
    at: datetime
    queue_id: str
    digest: str
    tokens: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class NoticeRow:
    """A notice as the ledger has it in the end."""

    notice_id: str
    recipient_id: str
    message_id: str
    state: str
    tier: str


@dataclass(frozen=True, kw_only=True)
class AttemptRow:
    """An attempt as the ledger has it."""

    notice_id: str
    at: datetime
    run_id: str
    state: str
    stage: str | None
    queue_id: str | None


@dataclass(frozen=True, kw_only=True)
class Crash:
    """Postgres was killed while this number of workers sent."""

    at: datetime
    senders: int


@dataclass(frozen=True, kw_only=True)
class Freeze:
    """A run was presumed dead while it lived: it went on at this instant, with what it had marked before."""

    run_id: str
    thawed_at: datetime


@dataclass(kw_only=True)
class Evidence:
    """Everything that the verdict is made from."""

    population: Population
    refused: frozenset[str]  # recipients whose mailbox refused for good, as the relay said it
    connections: int
    arrivals: list[Arrival]
    notices: list[NoticeRow]
    attempts: list[AttemptRow]
    kills: int = 0
    freezes: list[Freeze] = field(default_factory=list)
    crashes: list[Crash] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # what a worker died of, if not of a kill
    after_the_end: int = 0  # accepted in one more run, when nothing waited


@dataclass(kw_only=True)
class Verdict:
    """The numbers, and the sentences that must not be there."""

    due: int = 0
    told: int = 0
    refused: int = 0
    accepted: int = 0
    lost: int = 0
    duplicates: int = 0
    by_cause: Counter[str] = field(default_factory=Counter)
    bound: int = 0
    bound_of: dict[str, int] = field(default_factory=dict)
    left_in_doubt: int = 0
    states: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    stories: dict[str, list[str]] = field(default_factory=dict)  # of the copies that are hard to explain

    def fail(self, what: str, ids: Iterable[str]) -> None:
        """Keep a failure with some of the ids that it is about, if there are any."""
        found = sorted(ids)
        if found:
            self.failures.append(f"{what}: {len(found)} ({', '.join(found[:5])})")

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        return dict(vars(self))


def judge(evidence: Evidence) -> Verdict:
    """Hold the promise against what arrived."""
    verdict = Verdict(
        due=len(evidence.population.due),
        refused=len(evidence.refused),
        accepted=len(evidence.arrivals),
        states=Counter(notice.state for notice in evidence.notices),
        attempts=Counter(attempt.state for attempt in evidence.attempts),
    )
    _judge_recipients(evidence, verdict)
    _judge_duplicates(evidence, verdict)
    _judge_ledger(evidence, verdict)
    verdict.fail("a worker ended by a fault of ours", evidence.faults)
    if evidence.after_the_end:
        verdict.failures.append(f"sent again when nothing was due: {evidence.after_the_end}")
    return verdict


def _judge_recipients(evidence: Evidence, verdict: Verdict) -> None:
    """Everybody once: counted by recipient, whatever the ledger thinks."""
    due = evidence.population.due
    message_ids = defaultdict(set)
    for arrival in evidence.arrivals:
        message_ids[arrival.recipient_id].add(arrival.message_id)
    lost = due.keys() - message_ids.keys() - evidence.refused
    verdict.told = len(due.keys() & message_ids.keys())
    verdict.lost = len(lost)
    verdict.fail("lost: due, and never accepted", lost)
    verdict.fail("told of nothing due", message_ids.keys() - due.keys())
    verdict.fail("two different notices", (who for who, ids in message_ids.items() if len(ids) > 1))
    wrong = (a.recipient_id for a in evidence.arrivals if a.tokens != due.get(a.recipient_id))
    verdict.fail("the email does not name just the recipient's due tokens", set(wrong))


def _judge_duplicates(evidence: Evidence, verdict: Verdict) -> None:
    """Each second copy must have an excuse, and all of them stay within what was in flight."""
    notices = {notice.message_id: notice.notice_id for notice in evidence.notices}
    doubts = defaultdict(list)
    for attempt in evidence.attempts:
        if attempt.state == "unknown":
            doubts[attempt.notice_id].append(attempt)
    copies: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in sorted(evidence.arrivals, key=lambda arrival: arrival.at):
        copies[arrival.message_id].append(arrival)
    found: dict[str, list[str]] = defaultdict(list)
    for message_id, arrivals in copies.items():
        notice_id = notices.get(message_id, "")
        for first, second in pairwise(arrivals):
            doubted = any(_explains(doubt, first, second, evidence.freezes) for doubt in doubts[notice_id])
            cause = _cause(doubted=doubted, same=first.digest == second.digest)
            found[cause].append(message_id)
            if cause != UNKNOWN:
                verdict.stories[message_id] = _story(notice_id, arrivals, evidence)
    verdict.by_cause = Counter({cause: len(ids) for cause, ids in found.items()})
    verdict.duplicates = verdict.by_cause.total()
    verdict.fail("sent again, and the ledger has no doubt of the first", found[UNEXPLAINED])
    verdict.fail("sent again after a doubt, with other bytes", found[CHANGED])
    verdict.bound_of = {
        "connections x kills": evidence.connections * (evidence.kills + len(evidence.freezes)),
        "no answer after the dot": sum(a.state == "unknown" and a.stage == "dot" for a in evidence.attempts),
        "connections x senders at a Postgres kill": sum(evidence.connections * c.senders for c in evidence.crashes),
    }
    verdict.bound = sum(verdict.bound_of.values())
    if verdict.duplicates > verdict.bound:
        verdict.failures.append(f"{verdict.duplicates} duplicates, over the bound of {verdict.bound}")


def _explains(doubt: AttemptRow, first: Arrival, second: Arrival, freezes: Iterable[Freeze]) -> bool:
    """Whether this doubt is why there is a second copy: it came between the two, or one of them is a sleeper's."""
    if first.at <= doubt.at <= second.at:
        return True
    awake = [freeze.thawed_at for freeze in freezes if freeze.run_id == doubt.run_id and doubt.at < first.at]
    return any(thawed <= copy.at <= thawed + IN_FLIGHT for thawed in awake for copy in (first, second))


def _cause(*, doubted: bool, same: bool) -> str:
    """Why there is a second copy. A doubt is resent with the same bytes; a mark that Postgres lost explains nothing."""
    if not doubted:
        return UNEXPLAINED
    return UNKNOWN if same else CHANGED


def _story(notice_id: str, arrivals: list[Arrival], evidence: Evidence) -> list[str]:
    events = [(arrival.at, f"accepted as {arrival.queue_id}, bytes {arrival.digest[:8]}") for arrival in arrivals]
    events += [
        (a.at, f"{a.run_id} recorded {a.state} at {a.stage}, {a.queue_id}")
        for a in evidence.attempts
        if a.notice_id == notice_id
    ]
    events += [(crash.at, "Postgres killed") for crash in evidence.crashes]
    return [f"{at:%H:%M:%S.%f} {what}" for at, what in sorted(events)]


def _judge_ledger(evidence: Evidence, verdict: Verdict) -> None:
    """Nothing is called sent that did not arrive, and nothing that arrived is called failed, or waits.

    Who was refused for good may wait: a run that had nobody accepted believes no refusal.
    """
    arrived = {arrival.message_id for arrival in evidence.arrivals}
    queue_ids = {arrival.queue_id for arrival in evidence.arrivals}
    states = defaultdict(set)
    for notice in evidence.notices:
        states[notice.state].add(notice.message_id)
    verdict.left_in_doubt = len(states["unknown"])
    verdict.fail("marked sent and never accepted", states["sent"] - arrived)
    verdict.fail("marked failed and delivered", states["failed"] & arrived)
    known = states["sent"] | states["unknown"]
    verdict.fail("delivered, and the ledger does not say so", arrived - known - states["failed"])
    waiting = set().union(*(states[state] for state in ("planned", "claimed", "sending", "deferred")))
    refused = {notice.message_id for notice in evidence.notices if notice.recipient_id in evidence.refused}
    verdict.fail("still waits", waiting - refused)
    strange = (a.notice_id for a in evidence.attempts if a.state == "sent" and a.queue_id not in queue_ids)
    verdict.fail("an attempt is recorded as sent with a queue id that the relay never gave", strange)
    told = {notice.recipient_id for notice in evidence.notices if notice.state in {"sent", "unknown", "failed"}}
    verdict.fail("due, and the ledger ends without an answer", evidence.population.due.keys() - told - evidence.refused)
