"""What is true in the state machine's world: tokens, people, settings, and every message that met the wire.

Plain Python, one scalar decision at a time, written from design.md and not from the product: the two must agree.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum
from typing import Final, Literal
from zoneinfo import ZoneInfo

from token_pipelines.model import Mode
from token_pipelines.tiers import After, Before, Tier

ZONE: Final = ZoneInfo("Europe/Berlin")
RUN_AT: Final = time(9)
GRACE: Final = timedelta(hours=2)
MAX_ATTEMPTS: Final = 3
REDIRECT_TO: Final = "operator@example.net"


@dataclass(frozen=True, kw_only=True)
class Token:
    token_id: str
    created_at: datetime
    expires_at: datetime
    owners: frozenset[str]
    revoked: bool = False
    last_notified_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Person:
    recipient_id: str
    address: str | None
    verified: bool = True
    muted: bool = False


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What an operator may change in the configuration."""

    tiers: tuple[Tier, ...]
    mode: Mode = Mode.LIVE
    only_recipients: tuple[str, ...] = ()
    rollout_percent: Literal[0, 100] = 100
    on_unknown: Literal["resend", "hold"] = "resend"
    max_notices: int = 1000

    def opens(self, recipient_id: str) -> bool:
        return self.rollout_percent > 0 and (not self.only_recipients or recipient_id in self.only_recipients)

    def address(self, person: Person) -> str | None:
        """Where a notice to this person goes; None when nothing may go there."""
        if person.address is None or person.address.count("@") != 1 or not person.verified or person.muted:
            return None
        return REDIRECT_TO if self.mode is Mode.REDIRECT else person.address


def address_of(recipient_id: str, number: int | None = None) -> str:
    """One of a person's addresses. The people are spread over two domains."""
    suffix = "" if number is None else f".{number}"
    return f"p{recipient_id}{suffix}@d{int(recipient_id) % 2}.example"


def domain_of(address: str) -> str:
    return address.rpartition("@")[2]


@dataclass(frozen=True)
class Key:
    """A (token, recipient) and one expiry of it."""

    token_id: str
    recipient_id: str
    expires_at: datetime


@dataclass(frozen=True)
class Line:
    """One token of one notice."""

    key: Key
    threshold: datetime

    @property
    def says_expired(self) -> bool:
        return self.threshold >= self.key.expires_at


class Answer(Enum):
    """How the relay treats one message: its reply, and whether the message arrives."""

    SENT = "250"
    DEFERRED = "451"
    DEAD_ADDRESS = "550 5.1.1"
    REFUSED = "554 5.2.1"
    LOST_AFTER_ARRIVAL = "no answer, arrived"
    LOST_BEFORE_ARRIVAL = "no answer, not arrived"
    TROUBLE_THAT_PASSES = "421"
    TROUBLE = "530"
    TROUBLE_AT_RECIPIENT = "550 5.7.1"

    @property
    def arrives(self) -> bool:
        return self in {Answer.SENT, Answer.LOST_AFTER_ARRIVAL}

    @property
    def leaves_doubt(self) -> bool:
        return self in {Answer.LOST_AFTER_ARRIVAL, Answer.LOST_BEFORE_ARRIVAL}

    @property
    def refuses(self) -> bool:
        return self in {Answer.DEAD_ADDRESS, Answer.REFUSED}


@dataclass(kw_only=True, eq=False)
class Attempt:
    """One message handed to a connection. ``order`` and ``at`` are of the moment of its mark."""

    order: int
    at: datetime
    run_id: str
    mode: Mode
    message_id: str
    recipient_id: str
    address: str
    lines: tuple[Line, ...]
    again: bool = False  # an earlier copy is in doubt, so that a refusal of this one decides nothing
    answer: Answer | None = None  # None: on the socket still, or its sender died there
    arrived: bool = False
    interrupted: bool = False  # its sender died, was given up or lost the ledger before it could be recorded
    stalled: bool = False  # its sender stood still for long between its read of the tokens and the socket
    believed: bool = False  # refused, and others were accepted, so that it is the recipient's trouble

    @property
    def in_doubt(self) -> bool:
        return self.answer is None or self.answer.leaves_doubt or self.interrupted


@dataclass
class Truth:
    now: datetime
    tokens: dict[str, Token] = field(default_factory=dict)
    people: dict[str, Person] = field(default_factory=dict)
    suppressed: set[str] = field(default_factory=set)
    told_before: dict[Mode, datetime] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)

    def seen(self, decided_at: datetime) -> "Seen":
        """What a reader of the source sees at this moment."""
        return Seen(
            now=decided_at, tokens=dict(self.tokens), people=dict(self.people), told_before=dict(self.told_before)
        )

    def debts(self, setting: Setting, reach: datetime) -> Iterator[tuple[Line, str]]:
        """Whom a run must tell what, and at which address, unless it was told before."""
        for token in self.tokens.values():
            threshold = reached(token, setting.tiers, self.now, reach)
            if threshold is None or token.revoked or self._told_elsewhere(token, threshold, setting.mode):
                continue
            for recipient_id in sorted(token.owners):
                address = setting.address(self.people[recipient_id])
                if address is not None and setting.opens(recipient_id) and address not in self.suppressed:
                    yield Line(Key(token.token_id, recipient_id, token.expires_at), threshold), address

    def _told_elsewhere(self, token: Token, threshold: datetime, mode: Mode) -> bool:
        if mode in self.told_before and threshold < self.told_before[mode]:
            return True
        # An older job's mark counts until the ledger itself has sent for this token: then it may be our own.
        ours = any(
            line.key.token_id == token.token_id and line.key.expires_at == token.expires_at
            for attempt in self.attempts
            if attempt.mode is mode and attempt.arrived and not attempt.in_doubt
            for line in attempt.lines
        )
        return not ours and token.last_notified_at is not None and threshold <= token.last_notified_at

    def told(self, line: Line, mode: Mode) -> list[Attempt]:
        """The attempts that told this, or something more urgent, for certain or perhaps."""
        return [
            attempt
            for attempt in self.attempts
            if attempt.mode is mode
            and (attempt.arrived or attempt.in_doubt)
            and any(other.key == line.key and other.threshold >= line.threshold for other in attempt.lines)
        ]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The source as one read of it found it, and the ``now`` with which the reader decides."""

    now: datetime
    tokens: Mapping[str, Token]
    people: Mapping[str, Person]
    told_before: Mapping[Mode, datetime]


def reached(token: Token, tiers: Iterable[Tier], now: datetime, reach: datetime) -> datetime | None:
    """The latest threshold that the token has reached, design.md section 3; None when it is due at no tier."""
    tiers = list(tiers)
    lifetime = token.expires_at - token.created_at
    shortest = min((tier.before for tier in tiers if isinstance(tier, Before)), default=timedelta.min)
    due = []
    for tier in tiers:
        threshold = token.expires_at - tier.longest_lead
        if isinstance(tier, Before):
            if threshold < reach and token.expires_at > now and lifetime > tier.before:
                due.append(threshold)
        elif isinstance(tier, After) and threshold <= now <= threshold + tier.within + GRACE and lifetime > shortest:
            due.append(threshold)
    return max(due, default=None)


def run_at(day: date) -> datetime:
    return datetime.combine(day, RUN_AT, tzinfo=ZONE).astimezone(UTC)


def today(now: datetime) -> date:
    return now.astimezone(ZONE).date()


def reach_of(day: date, now: datetime) -> datetime:
    return run_at(max(day, today(now)) + timedelta(days=1)) + GRACE
