"""Token facts: every column that the source query may return, what it means, and what follows from it.

This one table is the source of the contract, the policy's flags and reasons, `source check`, the columns of the asset
``expiring_tokens`` and the forecast. docs/sources/README.md lists the columns for operators; a test compares the two.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from datetime import datetime
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

import numpy as np

from token_pipelines.model import Reason, to_micros

if TYPE_CHECKING:
    import pandas as pd  # not at run time: the config needs no frames

INSTANT: Final = "datetime64[us, UTC]"

NEVER: Final = np.iinfo(np.int64).min
"""Earlier than every instant; also how numpy writes NaT as an integer."""


class Kind(Enum):
    """What the values of a column are."""

    ID = auto()  # any scalar, kept as text in one canonical form
    INSTANT = auto()
    FLAG = auto()  # a boolean; a null counts as False
    TEXT = auto()
    SCOPES = auto()  # an array of text, or text with blanks or commas


class Presence(Enum):
    """Whether the query must return a column."""

    REQUIRED = auto()
    OPTIONAL = auto()
    DERIVED = auto()  # the query must not return it: the statement around the query computes it from other columns


def micros(instants: "pd.Series") -> np.ndarray:
    """Instants as int64 microseconds since 1970 UTC; NEVER for NaT. May share the series' memory."""
    return instants.astype(INSTANT).to_numpy(dtype="datetime64[us]").view(np.int64)


def when_true(flags: "pd.Series", now: datetime) -> np.ndarray:  # noqa: ARG001 -- as `once_past`
    """Rows whose flag is set."""
    return flags.to_numpy()


def when_false(flags: "pd.Series", now: datetime) -> np.ndarray:  # noqa: ARG001 -- as `once_past`
    """Rows whose flag is not set."""
    return ~flags.to_numpy()


def where_named(columns: "pd.Series", now: datetime) -> "np.ndarray":  # noqa: ARG001 -- as `once_past`
    """Rows in which a column is named."""
    named: np.ndarray = (columns != "").to_numpy(dtype=bool)
    return named


def once_past(instants: "pd.Series", now: datetime) -> "np.ndarray":
    """Rows whose instant has come. A row without an instant does not count."""
    when = micros(instants)
    has_come: np.ndarray = (when != NEVER) & (when <= to_micros(now))
    return has_come


@dataclass(frozen=True)
class TokenFact:
    """A column, what it means, and what follows from it.

    ``decides``: the policy needs the column, so the day's snapshot keeps it. Other columns are read just before
    sending, and stored nowhere. If the query does not return the column, its value is ``absent``; ``without`` says
    what that means, in words. A row for which ``holds`` is true leads to no email, for ``reason``.
    """

    column: str
    kind: Kind
    presence: Presence
    meaning: str
    _: KW_ONLY
    decides: bool = False
    absent: bool | str | None = None
    without: str = ""
    reason: Reason | None = None
    holds: "Callable[[pd.Series, datetime], np.ndarray] | None" = None

    @property
    def never_null(self) -> bool:
        """Whether the query must return a value in every row."""
        return self.decides and self.presence is Presence.REQUIRED


_ID, _INSTANT, _FLAG, _TEXT, _SCOPES = Kind
_REQUIRED, _OPTIONAL, _DERIVED = Presence

FACTS: Final = (
    TokenFact("token_id", _ID, _REQUIRED, "The token's id in the registry; its secret is never read.", decides=True),
    TokenFact(
        "recipient_id",
        _ID,
        _REQUIRED,
        "Whom to write to, by id; the address is read just before sending and kept nowhere.",
        decides=True,
    ),
    TokenFact("created_at", _INSTANT, _REQUIRED, "When the token was issued.", decides=True),
    TokenFact("expires_at", _INSTANT, _REQUIRED, "When the token expires.", decides=True),
    TokenFact(
        "unreadable",
        _TEXT,
        _DERIVED,
        "The column whose value cannot be read; empty where all can.",
        decides=True,
        absent="",
        reason=Reason.UNREADABLE,
        holds=where_named,
    ),
    TokenFact("token_name", _TEXT, _REQUIRED, "The token's name, as its owner typed it."),
    TokenFact("recipient_name", _TEXT, _REQUIRED, "The recipient's name."),
    TokenFact("email", _TEXT, _REQUIRED, "The recipient's address."),
    TokenFact(
        "has_address",
        _FLAG,
        _DERIVED,
        "The recipient has an address.",
        decides=True,
        reason=Reason.NO_ADDRESS,
        holds=when_false,
    ),
    TokenFact(
        "email_verified",
        _FLAG,
        _OPTIONAL,
        "The recipient has confirmed the address.",
        decides=True,
        absent=True,
        without="every address counts as verified",
        reason=Reason.UNVERIFIED_ADDRESS,
        holds=when_false,
    ),
    TokenFact(
        "revoked",
        _FLAG,
        _OPTIONAL,
        "The token was revoked.",
        decides=True,
        absent=False,
        without="no token counts as revoked: return it, or leave revoked tokens out in SQL",
        reason=Reason.REVOKED,
        holds=when_true,
    ),
    TokenFact(
        "muted",
        _FLAG,
        _OPTIONAL,
        "The recipient does not want these emails.",
        decides=True,
        absent=False,
        without="nobody counts as muted",
        reason=Reason.MUTED,
        holds=when_true,
    ),
    TokenFact(
        "replaced_at",
        _INSTANT,
        _OPTIONAL,
        "When a newer token took this one's place.",
        decides=True,
        without="no token counts as replaced by a newer one",
        reason=Reason.REPLACED,
        holds=once_past,
    ),
    TokenFact(  # the policy compares it with the threshold of the tier reached: see `Policy.decide`
        "last_notified_at",
        _INSTANT,
        _OPTIONAL,
        "When an older job last wrote about this token.",
        decides=True,
        without="what an older job has sent is not known (token-pipelines mark-notified can say it)",
    ),
    TokenFact(
        "last_used_at",
        _INSTANT,
        _OPTIONAL,
        "When the token was last used.",
        without="the email does not say when the token was last used",
    ),
    TokenFact(
        "scopes",
        _SCOPES,
        _OPTIONAL,
        "What the token may do.",
        without="the email does not say what the token may do",
    ),
    TokenFact("locale", _TEXT, _OPTIONAL, "The recipient's language.", without="emails are in English"),
    TokenFact("timezone", _TEXT, _OPTIONAL, "The recipient's time zone.", without="emails say instants in UTC"),
)

DTYPES: Final = {Kind.ID: "str", Kind.TEXT: "str", Kind.FLAG: "bool", Kind.INSTANT: INSTANT}
"""The dtypes of the columns that the policy needs."""

TOKEN_COLUMNS: Final = {fact.column: DTYPES[fact.kind] for fact in FACTS if fact.decides}
"""The columns and dtypes of a frame of tokens: one row per (token, recipient). An optional instant that is missing is
NaT."""
