"""Reserving a batch of notices for one run, and reading them with their tokens, in one statement."""

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import Engine, Row

from token_pipelines.model import WAITING, DueToken, Notice, State

# In a statement of its own, before the claim: if it waits for a planning, the claim then sees that planning's result.
_LOCK: Final = "SELECT pg_advisory_xact_lock_shared(%(lock)s)"

_MAY_BE_CLAIMED: Final = f"""
(state IN ({", ".join(f"'{state}'" for state in WAITING)})
    OR (%(resend)s AND state = 'unknown' AND attempts < %(max_attempts)s))
"""

_CLAIM: Final = f"""
WITH free AS (
    SELECT notice_id, state FROM token_pipelines.notices
    WHERE notice_id = ANY(%(ids)s::uuid[]) AND {_MAY_BE_CLAIMED}
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE token_pipelines.notices AS n SET state = 'claimed', claimed_by = %(run)s, claimed_from = free.state
    FROM free WHERE n.notice_id = free.notice_id
    RETURNING n.notice_id, n.recipient_id, n.tier, n.message_id, n.claimed_from, n.attempts, n.first_tried_at
)
SELECT c.notice_id::text, c.recipient_id, c.tier, c.message_id, c.claimed_from, c.attempts, c.first_tried_at,
    line.token_id, line.expires_at, line.threshold, line.tier
FROM claimed AS c
LEFT JOIN token_pipelines.notice_tokens AS line ON line.notice_id = c.notice_id AND NOT line.released
ORDER BY line.expires_at, line.token_id
"""  # noqa: S608 -- constants only


def claim(
    engine: Engine, ids: Collection[str], *, run_id: str, lock: int, resend: bool, max_attempts: int
) -> list[Notice]:
    """Reserve the notices among ``ids`` that wait and that no other run is claiming now. Keeps the order of ``ids``.

    Args:
        engine: the ledger's.
        ids: which notices.
        run_id: the run that claims them.
        lock: the key of the advisory lock: planning takes it exclusively, claims share it.
        resend: whether notices in doubt may be claimed too.
        max_attempts: a notice in doubt is claimed only if it had fewer attempts than this.
    """
    values = {"ids": list(ids), "run": run_id, "resend": resend, "max_attempts": max_attempts}
    with engine.begin() as connection:
        connection.exec_driver_sql(_LOCK, {"lock": lock})
        rows = connection.exec_driver_sql(_CLAIM, values).all()
    heads: dict[str, Row[Any]] = {}
    tokens: dict[str, list[DueToken]] = {}
    for row in rows:
        heads[row[0]] = row
        token_id, expires_at, threshold, tier = row[7:]
        if token_id is not None:
            due = DueToken(token_id=token_id, expires_at=expires_at, threshold=threshold, tier=tier)
            tokens.setdefault(row[0], []).append(due)
    return [_notice(heads[one], tokens.get(one, [])) for one in ids if one in heads]


def _notice(head: Row[Any], tokens: list[DueToken]) -> Notice:
    notice_id, recipient_id, tier, message_id, claimed_from, attempts, first_tried_at = tuple(head)[:7]
    return Notice(
        notice_id=notice_id,
        recipient_id=recipient_id,
        tier=tier,
        message_id=message_id,
        claimed_from=State(claimed_from),
        attempts=attempts,
        first_tried_at=first_tried_at if claimed_from == State.UNKNOWN else None,
        tokens=tuple(tokens),
    )
