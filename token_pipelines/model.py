"""The product's words as values: modes, states, reasons, notices, outcomes. No I/O and no third-party types.

Every instant is an aware ``datetime`` in UTC; every id is text in one canonical form.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum, auto
from typing import Final, Self

from token_pipelines.printable import printable


class Mode(StrEnum):
    """Where notices go. The mode is part of the ledger's key."""

    LIVE = "live"
    REDIRECT = "redirect"  # every email goes to the operator's delivery.redirect_to
    DRY_RUN = "dry_run"  # nothing is written to the ledger and nothing is sent

    @property
    def in_ledger(self) -> "Mode":
        """The mode whose rows in the ledger count: a dry run shows what a live run would do."""
        return Mode.LIVE if self is Mode.DRY_RUN else self


class State(StrEnum):
    """The state of a notice; the comment names the states that can follow."""

    PLANNED = "planned"  # -> claimed, withdrawn
    CLAIMED = "claimed"  # -> sending, skipped; back to planned, deferred or unknown when its run died
    SENDING = "sending"  # -> sent, failed, deferred, unknown
    SENT = "sent"
    DEFERRED = "deferred"  # -> claimed in a later run, withdrawn
    UNKNOWN = "unknown"  # -> claimed in a later run when delivery.on_unknown is resend
    FAILED = "failed"  # refused for good at this address
    SKIPPED = "skipped"  # resolving found nothing left to say, for the reason given
    WITHDRAWN = "withdrawn"  # planned anew at its present urgency


WAITING = (State.PLANNED, State.DEFERRED)
"""States that planning may withdraw: such a notice was certainly not delivered."""

TOLD = (State.CLAIMED, State.SENDING, State.SENT, State.UNKNOWN)
"""States whose thresholds count as told: sent, in doubt, or being sent."""


class Whose(Enum):
    """Whether a reason concerns the token or the recipient."""

    TOKEN = auto()
    RECIPIENT = auto()  # the token is due, so its tier counts the recipient as skipped


class Reason(StrEnum):
    """Why a token or a notice leads to no email: the reason's name, its meaning in words, and whom it concerns.

    If several hold, the policy names the first one in this order. A reason never uses up a notice: when it no longer
    holds, the token is due again. docs/failures.md lists the same meanings; a test compares the two.
    """

    meaning: str
    whose: Whose

    def __new__(cls, name: str, meaning: str = "", whose: Whose = Whose.TOKEN) -> Self:
        """Make a member. Every member has a meaning; ``Reason("gone")``, without one, only looks a member up."""
        reason = str.__new__(cls, name)
        reason._value_ = name
        reason.meaning = meaning
        reason.whose = whose
        return reason

    UNREADABLE = "unreadable", "the token's row in the source cannot be read"
    LIFETIME_TOO_SHORT = "lifetime_too_short", "the token's lifetime is too short for the tier"
    OUTSIDE_TIERS = "outside_tiers", "no tier has begun for the token, or the last one is over"
    GONE = "gone", "the source no longer returns the token"
    RENEWED = "renewed", "the token has another expiry than when the notice was planned"
    REVOKED = "revoked", "the source says that the token was revoked"
    REPLACED = "replaced", "the source says that a newer token has taken its place"
    EXPIRED_MEANWHILE = "expired_meanwhile", "the token expired between planning and sending"
    SUPERSEDED = "superseded", "a more urgent tier has begun since the notice was planned"
    ALREADY_NOTIFIED = "already_notified", "the person was told of this tier, or of a later one"
    REFUSED_ADDRESS = "refused_address", "the relay refused this address for good", Whose.RECIPIENT
    MUTED = "muted", "the source says that the recipient does not want these emails", Whose.RECIPIENT
    NO_ADDRESS = "no_address", "the source returns no address for the recipient", Whose.RECIPIENT
    UNVERIFIED_ADDRESS = "unverified_address", "the source says that the address is not verified", Whose.RECIPIENT
    BAD_ADDRESS = "bad_address", "the address cannot be written to", Whose.RECIPIENT
    SUPPRESSED = "suppressed", "the address is on the suppression list", Whose.RECIPIENT
    NOT_IN_ROLLOUT = (
        "not_in_rollout",
        "delivery.rollout_percent or delivery.only_recipients leaves the recipient out",
        Whose.RECIPIENT,
    )


RECIPIENT_REASONS: Final = tuple(reason for reason in Reason if reason.whose is Whose.RECIPIENT)


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row of the source whose facts cannot be made: its token's id, and the column that is at fault."""

    token_id: str
    column: str

    def __str__(self) -> str:
        """``token_id 4711: last_used_at``, on one line, without anything that looks like an address."""
        shown = printable(self.token_id[:_ID_SHOWN])
        return f"token_id {'…' if '@' in shown else shown}: {self.column}"


_ID_SHOWN: Final = 80

UNREADABLE_SHOWN: Final = 20
"""Rows that are named of those that cannot be read; the others are only counted."""


def explain_unreadable(rows: Sequence[UnreadableRow], count: int) -> str:
    """Which rows of the source cannot be read, in a sentence with the cure."""
    named = ", ".join(map(str, rows))
    noun = "row" if count == 1 else "rows"
    more = f" and {count - len(rows):,} more" if count > len(rows) else ""
    return (
        f"Not readable in the source, so nobody is told about them: {count:,} {noun} ({named}{more}); correct the "
        "column's value, or convert it in source.query. Every other row was read."
    )


class Stage(StrEnum):
    """The step of the SMTP session at which an answer came or the connection was lost."""

    CONNECT = "connect"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"  # after the final dot: only here, a lost answer leaves the notice in doubt
    BOUNCE = "bounce"  # not in a session: the relay took the message, and a delivery report came back later


DEAD_ADDRESS: frozenset[str] = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"})
"""Enhanced status codes (RFC 3463, RFC 7505) for a wrong recipient address: it is suppressed.

Without 5.1.7 and 5.1.8, which are about the sender: with a wrong From, every recipient would be suppressed.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class DueToken:
    """One line of a notice: a token of this recipient that has reached a tier. Instants in UTC."""

    token_id: str
    expires_at: datetime
    threshold: datetime
    tier: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """One email to one recipient, as claimed from the ledger by a run."""

    notice_id: str
    recipient_id: str
    tier: str
    message_id: str
    claimed_from: State
    attempts: int
    first_tried_at: datetime | None
    tokens: tuple[DueToken, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The result of one attempt. ``reply`` is the relay's text with addresses removed."""

    state: State
    stage: Stage
    code: int | None = None
    enhanced: str | None = None
    reply: str = ""
    queue_id: str | None = None
    address_is_dead: bool = False  # the address itself was refused: suppress it


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenFacts:
    """What the email says about one token, read from the source just before sending. Text is as the user typed it."""

    token_id: str
    name: str | None
    scopes: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipient:
    """Whom we write to, read from the source just before sending. Kept in memory only."""

    recipient_id: str
    name: str | None
    address: str
    locale: str | None = None
    timezone: str | None = None


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def to_micros(instant: datetime) -> int:
    """Microseconds since 1970 UTC of an aware instant, exactly."""
    return (instant - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    """The aware UTC instant of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=micros)


def rfc3339(instant: datetime) -> str:
    """``2026-11-20T09:00:00Z``; fractions of a second are shown only if there are any."""
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")
