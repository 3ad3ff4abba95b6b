"""Just before sending: read a batch of notices' tokens again, and see what of each is still worth saying.

Addresses live here and in the envelope, in memory, and nowhere else.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

import pandas as pd

from token_pipelines.addresses import valid_address
from token_pipelines.model import DueToken, Mode, Notice, Reason, Recipient, TokenFacts, UnreadableRow
from token_pipelines.pipeline import Pipeline
from token_pipelines.policy import no_history


class _Row(NamedTuple):
    """What a letter looks at of a decided row, in Python's own values; None is what is missing."""

    token_id: str
    recipient_id: str
    email: str | None
    recipient_name: str | None
    locale: str | None
    timezone: str | None
    token_name: str | None
    scopes: tuple[str, ...] | None
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime
    unreadable: str
    threshold: datetime | None
    reason: str | None
    blocking_reason: str | None


@dataclass(frozen=True, kw_only=True)
class ResolvedNotice:
    """What is left of a notice: whom to write to, about which tokens, and why the others were dropped.

    Without tokens there is nothing to send, and ``reason`` tells why.
    """

    notice: Notice
    recipient: Recipient | None
    tokens: tuple[TokenFacts, ...]
    dropped: dict[str, Reason]
    address_hash: bytes = b""
    unreadable: tuple[UnreadableRow, ...] = ()

    @property
    def reason(self) -> Reason:
        """The most frequent reason among the dropped tokens."""
        return Counter(self.dropped.values()).most_common(1)[0][0]


def resolve(pipeline: Pipeline, notices: Sequence[Notice], now: datetime) -> list[ResolvedNotice]:
    """Read the tokens of these notices again, by id, and ask the policy again with the present ``now``."""
    ids = {token.token_id for notice in notices for token in notice.tokens}
    if not ids:
        return [
            ResolvedNotice(notice=notice, recipient=None, tokens=(), dropped={"": Reason.GONE}) for notice in notices
        ]
    facts = pipeline.source.resolve(ids)
    reach = pipeline.config.schedule.reach(pipeline.config.schedule.today(now), now)
    # What an older job did was weighed when the notice was planned; by now the mark may be our own.
    unmarked = facts.assign(
        last_notified_at=pd.Series(pd.NaT, index=facts.index, dtype=facts["last_notified_at"].dtype)
    )
    decided = pipeline.policy.decide(unmarked, no_history(), now=now, reach=reach)
    decided["blocking_reason"] = pipeline.policy.blocking_reason(unmarked, now=now)
    columns = [_values(decided[name]) for name in _Row._fields]
    rows = {(row.token_id, row.recipient_id): row for row in map(_Row._make, zip(*columns, strict=True))}
    told = _ToldSince.read(pipeline, notices)
    letters = [_letter(notice, rows, told, now) for notice in notices]
    return _without_suppressed(pipeline, letters)


def _values(column: pd.Series) -> list[Any]:
    """A column as Python's values. Column by column: pandas' own instants are made one by one, and compare slowly."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        names = [*column.cat.categories, None]
        return [names[code] for code in column.cat.codes.tolist()]  # -1, the last, is what is missing
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        utc = column.to_numpy(dtype="datetime64[us]").tolist()
        return [instant and instant.replace(tzinfo=UTC) for instant in utc]
    return column.tolist()


@dataclass(frozen=True)
class _ToldSince:
    """What was told since a notice was planned: by a notice that was more urgent, or elsewhere, says the operator."""

    superseded_lines: set[tuple[str, str]]
    before: datetime | None

    @classmethod
    def read(cls, pipeline: Pipeline, notices: Sequence[Notice]) -> Self:
        superseded_lines = pipeline.ledger.told.superseded_lines([notice.notice_id for notice in notices])
        return cls(superseded_lines, pipeline.ledger.told.before(pipeline.config.delivery.mode))

    def reason(self, notice: Notice, token: DueToken) -> Reason | None:
        """Why this token's threshold is not told any more."""
        if self.before is not None and token.threshold < self.before:
            return Reason.ALREADY_NOTIFIED
        return Reason.SUPERSEDED if (notice.notice_id, token.token_id) in self.superseded_lines else None


def _letter(notice: Notice, rows: dict[tuple[str, str], _Row], told: _ToldSince, now: datetime) -> ResolvedNotice:
    kept: list[TokenFacts] = []
    dropped: dict[str, Reason] = {}
    unreadable: list[UnreadableRow] = []
    recipient: Recipient | None = None
    for token in notice.tokens:
        row = rows.get((token.token_id, notice.recipient_id))
        if row is None:
            dropped[token.token_id] = Reason.GONE
        elif row.unreadable:
            dropped[token.token_id] = Reason.UNREADABLE
            unreadable.append(UnreadableRow(row.token_id, row.unreadable))
        elif reason := _drop(token, row, now) or told.reason(notice, token):
            dropped[token.token_id] = reason
        else:
            recipient = recipient or _recipient(row)
            kept.append(_facts(row))
    if not kept and not dropped:
        dropped[""] = Reason.SUPERSEDED
    return ResolvedNotice(
        notice=notice, recipient=recipient, tokens=tuple(kept), dropped=dropped, unreadable=tuple(unreadable)
    )


def _drop(token: DueToken, row: _Row, now: datetime) -> Reason | None:
    """Why a planned token is no longer worth saying. That it is merely no longer due is no reason."""
    if row.expires_at != token.expires_at:
        return Reason.RENEWED
    if row.blocking_reason is not None:
        return Reason(row.blocking_reason)
    if token.threshold < token.expires_at <= now:
        return Reason.EXPIRED_MEANWHILE
    if row.threshold is not None and row.threshold > token.threshold:
        return Reason.SUPERSEDED
    if token.expires_at <= now and row.reason == Reason.OUTSIDE_TIERS:
        return Reason.OUTSIDE_TIERS
    return None if valid_address(_address(row)) else Reason.BAD_ADDRESS


def _address(row: _Row) -> str:
    """Empty where there is none, whatever the source's has_address says: a fault here would stop the tier for good."""
    return row.email.strip() if isinstance(row.email, str) else ""


def _recipient(row: _Row) -> Recipient:
    return Recipient(
        recipient_id=row.recipient_id,
        name=row.recipient_name,
        address=_address(row),
        locale=row.locale,
        timezone=row.timezone,
    )


def _facts(row: _Row) -> TokenFacts:
    return TokenFacts(
        token_id=row.token_id,
        name=row.token_name,
        scopes=row.scopes or (),
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        expires_at=row.expires_at,
    )


def _without_suppressed(pipeline: Pipeline, letters: list[ResolvedNotice]) -> list[ResolvedNotice]:
    """Drop what would go to a suppressed address, and set each letter's keyed hash of its address."""
    redirect_to = pipeline.config.delivery.redirect_to if pipeline.config.delivery.mode is Mode.REDIRECT else None
    hashes = {
        letter.notice.notice_id: pipeline.ledger.hash_address.known(redirect_to or letter.recipient.address)
        for letter in letters
        if letter.recipient is not None
    }
    suppressed = (
        pipeline.ledger.suppressions.among([each for known in hashes.values() for each in known]) if hashes else set()
    )
    return [
        _with_hash(letter, hashes.get(letter.notice.notice_id, (b"",)), suppressed, redirect_to) for letter in letters
    ]


def _with_hash(
    letter: ResolvedNotice, hashes: tuple[bytes, ...], suppressed: set[bytes], redirect_to: str | None
) -> ResolvedNotice:
    recipient, tokens, dropped = letter.recipient, letter.tokens, dict(letter.dropped)
    if recipient is not None and not suppressed.isdisjoint(hashes):
        dropped |= dict.fromkeys((token.token_id for token in tokens), Reason.SUPPRESSED)
        recipient, tokens = None, ()
    if recipient is not None and redirect_to is not None:
        recipient = Recipient(
            recipient_id=recipient.recipient_id,
            name=recipient.name,
            address=redirect_to,
            locale=recipient.locale,
            timezone=recipient.timezone,
        )
    return replace(letter, recipient=recipient, tokens=tokens, dropped=dropped, address_hash=hashes[0])
