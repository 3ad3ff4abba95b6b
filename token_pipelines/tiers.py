"""Tier kinds: when a step of urgency begins and ends for a token, and which tokens live long enough for it.

Each kind is one class, whose fields are its keys in the config. To add a kind, write a class here and add it to
`KINDS`. The policy calls the same methods of every kind, with whole columns: int64 microseconds; instants count from
1970 UTC. No I/O and no clock.
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from token_pipelines.model import MICROSECOND
from token_pipelines.token_facts import micros

if TYPE_CHECKING:
    import pandas as pd  # not at run time: the config needs no frames

ONE_DAY: Final = timedelta(days=1)

SHORTEST_NOTICE: Final = ONE_DAY
"""If a tier's share of a lifetime is shorter than this, no email is sent: machines use tokens that live for hours."""

NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,30}")

UNITS: Final = {
    "day": ONE_DAY,
    "hour": timedelta(hours=1),
    "minute": timedelta(minutes=1),
    "second": timedelta(seconds=1),
}


@dataclass(frozen=True, kw_only=True)
class TokenRows:
    """The tokens that a tier decides about, one row each, and the instants of the run.

    ``tokens`` has the columns of `token_facts.TOKEN_COLUMNS`; the arrays have one value per row. ``now``, ``reach`` and
    ``grace`` are those of `Policy.decide`, in microseconds.
    """

    tokens: "pd.DataFrame"
    now: int
    reach: int
    grace: int

    @cached_property
    def expires(self) -> np.ndarray:
        """When each token expires."""
        return micros(self.tokens["expires_at"])

    @cached_property
    def lifetime(self) -> np.ndarray:
        """How long each token lives, from creation to expiry."""
        lifetime: np.ndarray = self.expires - micros(self.tokens["created_at"])
        return lifetime

    @cached_property
    def alive(self) -> np.ndarray:
        """Whether each token has not expired yet."""
        return self.expires > self.now


@dataclass(frozen=True, kw_only=True, slots=True)
class Tier(ABC):
    """A step of urgency. The methods here suit kinds that begin before the expiry; other kinds override them.

    ``key`` is the config key that only this kind has, and ``like`` an example of its value. ``needs`` is the error
    message for a tier of this kind whose values do not fit together.
    """

    name: str

    key: ClassVar[str]
    like: ClassVar[str]
    needs: ClassVar[str]
    says_expired: ClassVar[bool] = False
    """Whether this kind is about tokens that have expired already."""

    def __post_init__(self) -> None:
        """Refuse a tier whose values do not fit together, with a ValueError of one sentence."""
        if NAME.fullmatch(self.name) is None:
            msg = f"name {self.name!r} must be lower case letters, digits and _, and start with a letter"
            raise ValueError(msg)
        if not self.makes_sense():
            msg = f"tier {self.name}: {self.needs}"
            raise ValueError(msg)

    @abstractmethod
    def makes_sense(self) -> bool:
        """Whether its values fit together."""

    @property
    @abstractmethod
    def longest_lead(self) -> timedelta:
        """The largest lead (expiry minus threshold) of any token: positive before the expiry, negative after it."""

    @abstractmethod
    def lead(self, rows: TokenRows) -> np.ndarray | int:
        """The lead (expiry minus threshold) in microseconds: one per row, or one for all rows."""

    def begins(self, rows: TokenRows, lead: np.ndarray | int) -> np.ndarray:
        """Per row the threshold: the instant at which this tier begins."""
        begins: np.ndarray = rows.expires - lead
        return begins

    def is_open(self, rows: TokenRows, begins: np.ndarray) -> np.ndarray:
        """Per row whether the tier is not over, and has begun or will begin before the next run has finished."""
        return rows.alive & (begins < rows.reach)

    def fits(self, rows: TokenRows, lead: np.ndarray | int, fitted: np.ndarray) -> np.ndarray:
        """Per row whether the token lives long enough. ``fitted``: whether it fits any less urgent tier."""
        return rows.lifetime > lead

    @property
    def sort_key(self) -> tuple[timedelta, Fraction]:
        """Sorts tiers, most urgent first: by longest lead. Two tiers with the same key begin at the same instant."""
        return self.longest_lead, Fraction(1)

    @property
    def span(self) -> timedelta:
        """The longest time between the expiry and an email of this tier, before or after the expiry."""
        return self.longest_lead

    @abstractmethod
    def describe(self) -> str:
        """Who gets this tier's emails, in a sentence."""

    def example(self, age: timedelta) -> timedelta:
        """The lead for a token that is ``age`` old when the tier begins; for previews."""
        return self.longest_lead


@dataclass(frozen=True, kw_only=True, slots=True)
class Before(Tier):
    """A tier that begins a fixed time before the expiry."""

    before: timedelta

    key = "before"
    like = "7d"
    needs = "before must be at least 1d"

    def makes_sense(self) -> bool:
        return self.before >= ONE_DAY

    @property
    def longest_lead(self) -> timedelta:
        return self.before

    def lead(self, rows: TokenRows) -> int:
        return self.before // MICROSECOND

    def describe(self) -> str:
        return f"Emails to owners of tokens that expire within {span_in_words(self.before)}."


@dataclass(frozen=True, kw_only=True, slots=True)
class After(Tier):
    """A tier that begins a fixed time after the expiry, and lasts for ``within``."""

    after: timedelta
    within: timedelta

    key = "after"
    like = "0d"
    needs = "after also needs within (at least 1d): for how long after that the notice may still be sent"
    says_expired = True

    def makes_sense(self) -> bool:
        return self.within >= ONE_DAY

    @property
    def longest_lead(self) -> timedelta:
        return -self.after

    @property
    def span(self) -> timedelta:
        return self.after + self.within

    def lead(self, rows: TokenRows) -> int:
        return -(self.after // MICROSECOND)

    def is_open(self, rows: TokenRows, begins: np.ndarray) -> np.ndarray:
        """Compares with ``now``, not with ``reach``: no email may call a token expired before it is."""
        lasts = self.within // MICROSECOND + rows.grace
        is_open: np.ndarray = ~rows.alive & (begins <= rows.now) & (begins >= rows.now - lasts)
        return is_open

    def fits(self, rows: TokenRows, lead: np.ndarray | int, fitted: np.ndarray) -> np.ndarray:
        """Only tokens that lived long enough for a tier before the expiry: not those that live for an hour in CI."""
        return fitted

    def describe(self) -> str:
        since = f"expired at least {span_in_words(self.after)} ago" if self.after else "have expired"
        return f"Emails to owners of tokens that {since}, sent until {span_in_words(self.span)} after the expiry."


@dataclass(frozen=True, kw_only=True, slots=True)
class Remaining(Tier):
    """A tier that begins when this share of the lifetime is left, but at most ``at_most`` before the expiry."""

    remaining: Fraction
    at_most: timedelta

    key = "remaining"
    like = "10%"
    needs = "remaining needs at_most (like 60d), at least 1d"

    def makes_sense(self) -> bool:
        return self.at_most >= ONE_DAY

    @property
    def longest_lead(self) -> timedelta:
        return self.at_most

    @property
    def sort_key(self) -> tuple[timedelta, Fraction]:
        """At equal longest leads the smaller share sorts first: it never begins earlier."""
        return self.at_most, self.remaining

    def lead(self, rows: TokenRows) -> np.ndarray:
        """The share of each lifetime, rounded down to whole microseconds."""
        share, whole = self.remaining.as_integer_ratio()
        wholes = rows.lifetime // whole  # in two parts: lifetime times share may overflow 64 bits
        lead: np.ndarray = wholes * share + (rows.lifetime - wholes * whole) * share // whole
        np.minimum(lead, self.at_most // MICROSECOND, out=lead)
        return lead

    def fits(self, rows: TokenRows, lead: np.ndarray | int, fitted: np.ndarray) -> np.ndarray:
        fits: np.ndarray = np.greater_equal(lead, SHORTEST_NOTICE // MICROSECOND)
        return fits

    def describe(self) -> str:
        share = f"{float(100 * self.remaining):g} %"
        at_most = span_in_words(self.at_most)
        return f"Emails to owners of tokens that have {share} of their lifetime left, {at_most} at most."

    def example(self, age: timedelta) -> timedelta:
        left, lived = (self.remaining / (1 - self.remaining)).as_integer_ratio()
        return min(max(age * left / lived, SHORTEST_NOTICE), self.at_most)


KINDS: Final[tuple[type[Tier], ...]] = (Before, After, Remaining)
"""Every kind that a config may use."""


def span_in_words(span: timedelta) -> str:
    """``7 days``, ``1 day and 12 hours``: exact, as configured."""
    words = []
    for unit, length in UNITS.items():
        count, span = divmod(span, length)
        if count:
            words.append(f"{count} {unit}{'' if count == 1 else 's'}")
    return " and ".join(words) or "0 days"
