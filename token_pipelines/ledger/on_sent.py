"""For which sent notices `source.on_sent` has run. A later run repeats it for those that are missing."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, Exists, func, select
from sqlalchemy.dialects.postgresql import insert

from token_pipelines.ledger.tables import notice_tokens, notices, on_sent
from token_pipelines.model import Mode, State


@dataclass(frozen=True, kw_only=True, slots=True)
class SentNotice:
    """A notice that the relay accepted, and its tokens, except those that a later notice was about."""

    notice_id: str
    token_ids: tuple[str, ...]
    sent_at: datetime


class OnSentLog:
    """The notices for which `source.on_sent` has run."""

    def __init__(self, engine: Engine) -> None:
        """Work on the ledger that ``engine`` reaches."""
        self._engine = engine

    def keep(self, notice_ids: Collection[str]) -> None:
        """Record that `source.on_sent` has run for these notices."""
        rows = [{"notice_id": notice_id} for notice_id in notice_ids]
        with self._engine.begin() as connection:
            connection.execute(insert(on_sent).on_conflict_do_nothing(), rows)

    def missing(self, *, since: datetime, page: int) -> Iterator[list[SentNotice]]:
        """Live notices that were planned since ``since`` and sent, but for which `source.on_sent` has not run.

        Yields lists of at most ``page`` notices, the last sent first. A token is listed only with the last notice about
        it, so that no earlier instant replaces a later one. A notice may therefore have no token.
        """
        known = select(on_sent.c.notice_id).where(on_sent.c.notice_id == notices.c.notice_id).exists()
        query = (
            select(
                notices.c.notice_id,
                notices.c.sent_at,
                func.array_agg(notice_tokens.c.token_id).filter(~_told_again_since()),
            )
            .join(notice_tokens, notice_tokens.c.notice_id == notices.c.notice_id)
            .where(notices.c.mode == Mode.LIVE, notices.c.state == State.SENT, notices.c.planned_at >= since)
            .where(~notice_tokens.c.released, ~known)
            .group_by(notices.c.notice_id, notices.c.sent_at)
            .order_by(notices.c.sent_at.desc())
        )
        with self._engine.connect() as connection:
            for rows in connection.execute(query.execution_options(yield_per=page)).partitions():
                yield [SentNotice(notice_id=str(row[0]), sent_at=row[1], token_ids=tuple(row[2] or ())) for row in rows]


def _told_again_since() -> Exists:
    """Whether a live notice about the same token was sent after this one."""
    later, line = notices.alias("later"), notice_tokens.alias("later_line")
    return (
        select(line.c.token_id)
        .join(later, later.c.notice_id == line.c.notice_id)
        .where(line.c.token_id == notice_tokens.c.token_id, ~line.c.released)
        .where(later.c.mode == Mode.LIVE, later.c.state == State.SENT, later.c.sent_at > notices.c.sent_at)
        .exists()
    )
