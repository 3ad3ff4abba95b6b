"""The real databases and the real parts of the product that every story of the state machine shares."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
from adbc_driver_postgresql import dbapi
from psycopg.rows import namedtuple_row
from state_machine.truth import GRACE, MAX_ATTEMPTS, REDIRECT_TO, RUN_AT, ZONE, Person, Setting, Token
from support.ledger import ledger_at

from token_pipelines.config import Config, Origin, TierConfig
from token_pipelines.database import DatabaseUrl
from token_pipelines.ledger.ledger import Ledger
from token_pipelines.model import Mode
from token_pipelines.pipeline import Pipeline
from token_pipelines.policy import Policy
from token_pipelines.source.databases.postgres import POSTGRES
from token_pipelines.source.databases.postgres_reader import PostgresReader
from token_pipelines.source.source import Source

TEMPLATES: Final = Path(__file__).parents[2] / "templates"

OWNERS: LiteralString = "CREATE TABLE token_owners (token_id int, user_id int, PRIMARY KEY (token_id, user_id))"

QUERY: Final = """
SELECT api_tokens.id AS token_id, token_owners.user_id AS recipient_id, api_tokens.created_at,
    api_tokens.expired_at AS expires_at, api_tokens.name AS token_name, users.name AS recipient_name, emails.email,
    coalesce(emails.verified, false) AS email_verified, NOT users.publish_notifications AS muted, api_tokens.revoked,
    api_tokens.expiry_notification_at AS last_notified_at
FROM api_tokens
JOIN token_owners ON token_owners.token_id = api_tokens.id
JOIN users ON users.id = token_owners.user_id
LEFT JOIN emails ON emails.user_id = users.id
WHERE api_tokens.expired_at >= :expires_after AND api_tokens.expired_at < :expires_before
"""
"""crates.io's tables, with teams: a token may have several owners."""

CLEAR: LiteralString = """
DELETE FROM token_pipelines.notices;
DELETE FROM token_pipelines.runs;
DELETE FROM token_pipelines.suppressions;
DELETE FROM token_pipelines.fuse_trips;
DELETE FROM token_pipelines.plans;
DELETE FROM token_pipelines.told_before;
DELETE FROM api_tokens;
DELETE FROM token_owners;
DELETE FROM users;
DELETE FROM emails
"""

ROWS: LiteralString = """
SELECT notices.notice_id::text, mode, tier, planned_at, recipient_id, state, claimed_by, claimed_from, message_id,
    attempts,
    coalesce(jsonb_agg(jsonb_build_array(token_id, extract(epoch FROM expires_at) * 1000000,
        extract(epoch FROM threshold) * 1000000, released)) FILTER (WHERE token_id IS NOT NULL), '[]') AS lines
FROM token_pipelines.notices
LEFT JOIN (SELECT notice_id, token_id, expires_at, threshold, released FROM token_pipelines.notice_tokens) AS lines
    USING (notice_id)
GROUP BY notices.notice_id ORDER BY planned_at, notices.notice_id
"""


class KeptOpen(PostgresReader):
    """The real reader on one connection that stays open: making one costs 30 ms, and a story reads a hundred times."""

    _connection: Any = None

    @contextmanager
    def connection(self) -> Iterator[Any]:
        if KeptOpen._connection is None:
            KeptOpen._connection = dbapi.connect(self.conninfo())
        try:
            yield KeptOpen._connection
        finally:
            KeptOpen._connection.rollback()

    @staticmethod
    def close() -> None:
        if KeptOpen._connection is not None:
            KeptOpen._connection.close()
        KeptOpen._connection = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A notice as the ledger holds it; a line is (token_id, expires_at, threshold, released), instants in µs."""

    notice_id: str
    mode: Mode
    tier: str
    planned_at: datetime
    recipient_id: str
    state: str
    claimed_by: str | None
    claimed_from: str | None
    message_id: str
    attempts: int
    lines: list[tuple[str, int, int, bool]]


class House:
    """One database with a registry and a ledger in it, emptied between stories, and the product's parts on top."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        (folder / "teams.sql").write_text(QUERY, encoding="utf-8")
        self.connection = psycopg.connect(url, autocommit=True, row_factory=namedtuple_row)
        self.connection.execute(OWNERS)
        config = Config.model_validate(
            {
                "source": {"url": url, "query": "teams.sql"},
                "ledger": {"url": url},
                "schedule": {
                    "at": RUN_AT.strftime("%H:%M"),
                    "timezone": ZONE.key,
                    "start_date": "2026-01-01",
                    "grace": GRACE,
                },
                "tiers": [{"name": "any", "before": "1d"}],
                "email": {
                    "from": "Registry <noreply@example.org>",
                    "service": "Registry",
                    "templates": TEMPLATES,
                    "links": {"manage": "https://example.org/tokens"},
                },
                # One connection: what one process does is then one sequence, and stories replay.
                "smtp": {"security": "none", "connections": 1, "rate": None, "reconnect_pauses": ["0s"]},
                "delivery": {"max_attempts": MAX_ATTEMPTS, "retry_pauses": ["0s"]},
            },
            context=Origin(folder / "token_pipelines.yaml"),
        )
        self._parts = Pipeline(config, lambda: datetime.now(UTC))
        reader = KeptOpen(POSTGRES, DatabaseUrl.read(url, "source.url"), config.source)
        self._parts.source = Source(config.source, reader=reader)
        self._parts.ledger.migrate()
        self._ledgers: list[Ledger] = [self._parts.ledger]

    def parts(self, setting: Setting, clock: Callable[[], datetime], ledger: Ledger) -> Pipeline:
        """The product's parts under a setting."""
        config = self._parts.config
        tiers = tuple(TierConfig.model_validate(asdict(tier)) for tier in setting.tiers)
        delivery = config.delivery.model_copy(
            update={
                "mode": setting.mode,
                "redirect_to": REDIRECT_TO if setting.mode is Mode.REDIRECT else None,
                "only_recipients": setting.only_recipients,
                "rollout_percent": setting.rollout_percent,
                "on_unknown": setting.on_unknown,
                "max_notices": setting.max_notices,
            }
        )
        config = config.model_copy(update={"tiers": tiers, "delivery": delivery})
        policy = Policy(
            tiers=config.tier_ladder,
            grace=config.schedule.grace,
            rollout_percent=delivery.rollout_percent,
            only_recipients=delivery.only_recipients,
        )
        parts = copy(self._parts)
        parts.config, parts.clock, parts.policy, parts.ledger = config, clock, policy, ledger
        return parts

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """A ledger of its own for one process: its connections die with it, and are used again by the next."""
        ledger = self._ledgers.pop() if self._ledgers else ledger_at(self.url, connections=1)
        try:
            yield ledger
        finally:
            self._ledgers.append(ledger)

    def clear(self) -> None:
        """Empty every table; the key of the address hashes stays."""
        self.connection.execute(CLEAR)

    def close(self) -> None:
        self.connection.close()
        KeptOpen.close()
        for ledger in self._ledgers:
            ledger.close()

    def put_token(self, token: Token) -> None:
        """Write a token as it is now."""
        self.connection.execute(
            "INSERT INTO api_tokens (id, user_id, name, created_at, expired_at, revoked, expiry_notification_at)"
            " VALUES (%(id)s, 0, 'ci', %(created)s, %(expires)s, %(revoked)s, %(notified)s) ON CONFLICT (id) DO UPDATE"
            " SET expired_at = %(expires)s, revoked = %(revoked)s, expiry_notification_at = %(notified)s",
            {
                "id": token.token_id,
                "created": token.created_at,
                "expires": token.expires_at,
                "revoked": token.revoked,
                "notified": token.last_notified_at,
            },
        )
        self.connection.execute("DELETE FROM token_owners WHERE token_id = %s", [token.token_id])
        for owner in token.owners:
            self.connection.execute("INSERT INTO token_owners VALUES (%s, %s)", [token.token_id, owner])

    def drop_token(self, token_id: str) -> None:
        """The owner deletes it."""
        self.connection.execute("DELETE FROM api_tokens WHERE id = %s", [token_id])
        self.connection.execute("DELETE FROM token_owners WHERE token_id = %s", [token_id])

    def put_person(self, person: Person) -> None:
        """Write a person as they are now."""
        self.connection.execute(
            "INSERT INTO users (id, gh_id, gh_login, name, publish_notifications)"
            " VALUES (%(id)s, %(id)s, 'ada', 'Ada', %(wants)s)"
            " ON CONFLICT (id) DO UPDATE SET publish_notifications = %(wants)s",
            {"id": person.recipient_id, "wants": not person.muted},
        )
        self.connection.execute("DELETE FROM emails WHERE user_id = %s", [person.recipient_id])
        if person.address is not None:
            self.connection.execute(
                "INSERT INTO emails (user_id, email, verified) VALUES (%s, %s, %s)",
                [person.recipient_id, person.address, person.verified],
            )

    def lift_suppressions(self) -> None:
        """An operator takes every address off the list."""
        self.connection.execute("DELETE FROM token_pipelines.suppressions")

    def silence(self, run_id: str) -> None:
        """A run has not been heard of for longer than its lease."""
        self.connection.execute(
            "UPDATE token_pipelines.runs SET heartbeat_at = heartbeat_at - interval '1 hour' WHERE run_id = %s",
            [run_id],
        )

    def rows(self) -> list[Row]:
        """Every notice in the ledger, oldest first."""
        found: list[Any] = self.connection.execute(ROWS).fetchall()
        return [
            Row(
                notice_id=row.notice_id,
                mode=Mode(row.mode),
                tier=row.tier,
                planned_at=row.planned_at,
                recipient_id=row.recipient_id,
                state=row.state,
                claimed_by=row.claimed_by,
                claimed_from=row.claimed_from,
                message_id=row.message_id,
                attempts=row.attempts,
                lines=[(line[0], int(line[1]), int(line[2]), line[3]) for line in row.lines],
            )
            for row in found
        ]
