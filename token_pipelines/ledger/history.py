"""Answers "was this person warned, and when?": notices with their tokens and attempts, as plain objects."""

from collections.abc import Collection, Iterator
from datetime import date
from typing import Any, Final

from sqlalchemy import Connection, Engine, func, select

from token_pipelines.ledger.tables import attempts, notice_tokens, notices
from token_pipelines.model import State, rfc3339

PAGE: Final = 500
"""Notices read at a time: their tokens and attempts are fetched together."""


class History:
    """The history of one ledger's notices."""

    def __init__(self, engine: Engine) -> None:
        """Read the ledger that ``engine`` reaches."""
        self._engine = engine

    def entries(
        self,
        *,
        day: date | None = None,
        token_id: str | None = None,
        recipient_id: str | None = None,
        notice_ids: Collection[str] | None = None,
    ) -> Iterator[dict[str, object]]:
        """Every notice that matches all given filters, oldest first, as the objects of ``history --json``.

        Ids are text, instants RFC 3339 in UTC.
        """
        query = select(notices).order_by(notices.c.planned_at, notices.c.notice_id)
        if day is not None:
            query = query.where(notices.c.day == day)
        if notice_ids is not None:
            query = query.where(notices.c.notice_id == func.any(list(notice_ids)))
        if recipient_id is not None:
            query = query.where(notices.c.recipient_id == recipient_id)
        if token_id is not None:
            about = select(notice_tokens.c.notice_id).where(notice_tokens.c.token_id == token_id)
            query = query.where(notices.c.notice_id.in_(about))
        with self._engine.connect() as connection:
            for page in connection.execute(query.execution_options(yield_per=PAGE)).partitions():
                ids = [row.notice_id for row in page]
                tokens, tries = _tokens(connection, ids), _attempts(connection, ids)
                for row in page:
                    yield _entry(row, tokens.get(row.notice_id, []), tries.get(row.notice_id, []))


def _entry(row: Any, tokens: list[dict[str, object]], tries: list[dict[str, object]]) -> dict[str, object]:  # noqa: ANN401 -- a row
    return {
        "notice_id": row.notice_id,
        "date": row.day.isoformat(),
        "mode": row.mode,
        "tier": row.tier,
        "state": row.state,
        "reason": row.reason,
        "recipient_id": row.recipient_id,
        "tokens": tokens,
        "message_id": row.message_id,
        "sent_at": rfc3339(row.sent_at) if row.state == State.SENT else None,
        "attempts": tries,
    }


def _tokens(connection: Connection, ids: list[str]) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    lines = select(notice_tokens).where(notice_tokens.c.notice_id == func.any(ids))
    for line in connection.execute(lines.order_by(notice_tokens.c.expires_at, notice_tokens.c.token_id)):
        entry = {"token_id": line.token_id, "expires_at": rfc3339(line.expires_at), "tier": line.tier}
        if line.reason is not None:
            entry["dropped"] = line.reason
        found.setdefault(line.notice_id, []).append(entry)
    return found


def _attempts(connection: Connection, ids: list[str]) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    lines = select(attempts).where(attempts.c.notice_id == func.any(ids)).order_by(attempts.c.attempt_id)
    for line in connection.execute(lines):
        entry: dict[str, object] = {
            "at": rfc3339(line.at),
            "run_id": line.run_id,
            "stage": line.stage,
            "code": line.code,
            "enhanced": line.enhanced,
            "reply": line.reply,
            "queue_id": line.queue_id,
        }
        found.setdefault(line.notice_id, []).append(entry)
    return found
