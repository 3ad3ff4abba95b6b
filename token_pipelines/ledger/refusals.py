"""Refusals for good that the ledger remembers: on how many days an address was refused, and whether others were not."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine, text

_REFUSED_BEFORE: Final = text("""
WITH mine AS (
    SELECT n.notice_id, n.mode, n.recipient_id, last.address_hash
    FROM token_pipelines.notices AS n
    CROSS JOIN LATERAL (
        SELECT address_hash FROM token_pipelines.attempts AS attempt
        WHERE attempt.notice_id = n.notice_id ORDER BY attempt_id DESC LIMIT 1
    ) AS last
    WHERE n.notice_id = ANY(CAST(:ids AS uuid[]))
), refused AS (
    SELECT mine.notice_id, mine.mode,
        count(DISTINCT (attempt.at AT TIME ZONE :zone)::date) AS days, min(attempt.at) AS first
    FROM mine
    JOIN token_pipelines.notices AS other ON other.recipient_id = mine.recipient_id AND other.mode = mine.mode
    JOIN token_pipelines.attempts AS attempt ON attempt.notice_id = other.notice_id
        AND attempt.address_hash = mine.address_hash AND attempt.state = 'failed'
    GROUP BY mine.notice_id, mine.mode
)
SELECT notice_id::text, days, EXISTS (
    SELECT FROM token_pipelines.notices AS told
    WHERE told.mode = refused.mode AND told.state = 'sent' AND told.sent_at >= refused.first
        AND told.planned_at >= refused.first - interval '60 days'
) FROM refused
""")


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedBefore:
    """The refusals for good of one address.

    Attributes:
        days: on how many different days it was refused, the present one included.
        is_accepting: whether the relay has accepted a message to anybody since the first of these refusals.
    """

    days: int
    is_accepting: bool


def refused_before(engine: Engine, notice_ids: Collection[str], *, zone: str) -> dict[str, RefusedBefore]:
    """What the ledger knows of the addresses to which these notices were refused, by notice id.

    Args:
        engine: the ledger's.
        notice_ids: notices that were refused for good just now.
        zone: the name of the time zone in which days are counted.
    """
    if not notice_ids:
        return {}
    with engine.begin() as connection:
        rows = connection.execute(_REFUSED_BEFORE, {"ids": list(notice_ids), "zone": zone})
        return {row[0]: RefusedBefore(days=row[1], is_accepting=row[2]) for row in rows}
