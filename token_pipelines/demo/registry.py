"""A sample registry, shaped as crates.io's database is: users, their addresses, their API tokens.

The same ``now`` gives the same rows. All addresses are in the example domains, and there are no real secrets.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString

import psycopg
from psycopg import sql

SCHEMA: LiteralString = """
CREATE TABLE IF NOT EXISTS users (
    id serial PRIMARY KEY,
    gh_id int NOT NULL,
    gh_login varchar NOT NULL,
    name varchar,
    username varchar,
    account_lock_reason varchar,
    account_lock_until timestamptz,
    is_admin bool NOT NULL DEFAULT false,
    publish_notifications bool NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS emails (
    id serial PRIMARY KEY,
    user_id int NOT NULL UNIQUE,
    email varchar NOT NULL,
    verified bool NOT NULL DEFAULT false,
    token text NOT NULL DEFAULT md5(random()::text),
    token_generated_at timestamptz
);
CREATE TABLE IF NOT EXISTS api_tokens (
    id serial PRIMARY KEY,
    user_id int NOT NULL,
    token bytea NOT NULL UNIQUE DEFAULT decode(md5(random()::text), 'hex'),
    name varchar NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    last_used_at timestamptz,
    revoked bool NOT NULL DEFAULT false,
    crate_scopes text[],
    endpoint_scopes text[],
    expired_at timestamptz,
    expiry_notification_at timestamptz
);
CREATE INDEX IF NOT EXISTS api_tokens_expired_at ON api_tokens (expired_at);
CREATE INDEX IF NOT EXISTS api_tokens_user_id ON api_tokens (user_id, created_at);
"""
"""The tables of crates.io that matter here, with the indexes of docs/sources/crates_io.md. No foreign keys: tests
delete a user who still has tokens."""

RANDOM_SEED = 20_150_515  # the day of Rust 1.0
LOCK_KEY = 7_261_901  # advisory; two demos that start at once must not both fill the tables
OLDER_JOB_NOTICE = timedelta(days=3)  # how long before the expiry crates.io's own job writes
ENDPOINTS = ("publish-new", "publish-update", "yank", "change-owners", "trusted-publishing")

EXPIRIES = (  # share of the tokens, first and last day of their expiry as seen from now; None: never
    (0.491, None),
    (0.066, (-6, 9)),  # over forty a day, so that each tier has new ones today and on the days before: expired, 1d, 7d
    (0.030, (26, 32)),  # the same for 30d
    (0.008, (9, 26)),
    (0.225, (32, 360)),
    (0.180, (-700, -6)),
)
LIFETIMES = (7, 30, 60, 90, 365)
LIFETIME_WEIGHTS = (1, 4, 3, 5, 3)

FIRST_NAMES = (
    "Ada", "Alan", "Barbara", "Chinedu", "Dmitri", "Edsger", "Fatima", "Grace", "Hana", "Ivan", "Jana", "Katherine",
    "Linus", "Maja", "Niklaus", "Olga", "Priya", "Quentin", "Radia", "Søren", "Tomás", "Ursula", "Wei", "Zoë",
)  # fmt: skip
LAST_NAMES = (
    "Åkesson", "Bauer", "Castillo", "Dubois", "Eze", "Fischer", "García", "Haddad", "Ito", "Janssen", "Kowalska",
    "Lovelace", "Müller", "Novák", "O'Brien", "Petrov", "Quispe", "Rossi", "Sato", "Tanaka", "Vargas", "Wójcik",
)  # fmt: skip
TOKEN_NAMES = (
    "ci-publish", "laptop", "github-actions release", "release-plz", "cargo-release", "work laptop", "gitlab-ci",
    "nightly builds", "desktop", "yank bot", "deploy", "test", "my token", "jenkins (old)", "docs.yml", "backup key",
)  # fmt: skip
UNICODE_NAMES = ("Büro-Rechner", "сборка", "発行用トークン", "🦀 release", "clé de publication", "نشر")
HOSTILE_NAMES = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "Robert'); DROP TABLE api_tokens;--",
    "ci\r\nBcc: everyone@example.org",
    "click https://evil.example/renew now",
    "\u202eexe.nekot",
    "{{ config.SECRET }}",
    "a-very-long-name-" * 20,
)
ODD_NAME_SHARE = 0.02  # of the tokens, each for unicode and for hostile


@dataclass(frozen=True, slots=True)
class _User:
    login: str
    name: str | None
    created_at: datetime


def create_schema(connection: psycopg.Connection[Any]) -> None:
    """Create the registry's tables where they are missing; the caller commits."""
    connection.execute(SCHEMA)


def seed(url: str, *, now: datetime, users: int = 2000, tokens: int = 10_000) -> bool:
    """Create the tables and fill them. If there are tokens already, do nothing and return False.

    With the default numbers, each of the tiers 30d, 7d, 1d and expired has a few dozen notices on the day of ``now``
    and on each of the three days before it.
    """
    rng = random.Random(RANDOM_SEED)  # noqa: S311 -- a sample, the same every time
    with psycopg.connect(url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])
        create_schema(connection)
        if connection.execute("SELECT FROM api_tokens LIMIT 1").fetchone() is not None:
            return False
        people = [_make_user(rng, number, now) for number in range(1, users + 1)]
        _copy(connection, "users", USER_COLUMNS, _user_rows(rng, people))
        _copy(connection, "emails", EMAIL_COLUMNS, _email_rows(rng, people))
        _copy(connection, "api_tokens", TOKEN_COLUMNS, (_token_row(rng, users, now) for _ in range(tokens)))
        connection.execute("SELECT setval('users_id_seq', %s)", [users])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ANALYZE users, emails, api_tokens")
    return True


USER_COLUMNS = (
    "id", "gh_id", "gh_login", "name", "username", "account_lock_reason", "is_admin", "publish_notifications",
    "created_at",
)  # fmt: skip
EMAIL_COLUMNS = ("user_id", "email", "verified", "token", "token_generated_at")
TOKEN_COLUMNS = (
    "user_id", "token", "name", "created_at", "last_used_at", "revoked", "crate_scopes", "endpoint_scopes",
    "expired_at", "expiry_notification_at",
)  # fmt: skip


def _make_user(rng: random.Random, number: int, now: datetime) -> _User:
    first, last = rng.choice(FIRST_NAMES), rng.choice(LAST_NAMES)
    login = f"{first}{last[0]}{number}".lower().encode("ascii", "ignore").decode()
    name = None if rng.random() < 0.1 else f"{first} {last}"  # noqa: PLR2004 a share
    return _User(login, name, now - timedelta(days=rng.uniform(400, 3000)))


def _user_rows(rng: random.Random, people: Sequence[_User]) -> Iterator[tuple[object, ...]]:
    for number, user in enumerate(people, start=1):
        locked = "terms of service" if rng.random() < 0.002 else None  # noqa: PLR2004 a share
        wants_mail = rng.random() < 0.9  # noqa: PLR2004 a share
        is_admin = number <= 3  # noqa: PLR2004 the founders
        yield number, 1000 + number, user.login, user.name, user.login, locked, is_admin, wants_mail, user.created_at


def _email_rows(rng: random.Random, people: Sequence[_User]) -> Iterator[tuple[object, ...]]:
    for number, user in enumerate(people, start=1):
        if rng.random() < 0.03:  # noqa: PLR2004 never gave an address
            continue
        domain = rng.choice(("org", "com", "net"))
        verified = rng.random() >= 0.05  # noqa: PLR2004 a share
        yield number, f"{user.login}@example.{domain}", verified, rng.randbytes(13).hex(), user.created_at


def _token_row(rng: random.Random, users: int, now: datetime) -> tuple[object, ...]:
    created_at, expires_at = _lifetime(rng, now)
    end = min(now, expires_at or now)
    last_used_at = created_at + rng.random() * (end - created_at) if rng.random() < 0.7 else None  # noqa: PLR2004
    user_id = 1 + int(users * rng.random() ** 1.3)  # some have many tokens, most a few
    return (
        user_id,
        rng.randbytes(32),
        _token_name(rng),
        created_at,
        last_used_at,
        rng.random() < 0.04,  # noqa: PLR2004 revoked
        rng.choice((None, None, None, ["serde"], ["tokio*", "mio"])),
        rng.sample(ENDPOINTS, rng.randint(1, 3)) if rng.random() < 0.6 else None,  # noqa: PLR2004 a share
        expires_at,
        _older_job(rng, created_at, expires_at, now),
    )


def _lifetime(rng: random.Random, now: datetime) -> tuple[datetime, datetime | None]:
    """When a token was created, not after ``now``, and when it expires: one of the lifetimes later, or never."""
    (days,) = rng.choices([days for _, days in EXPIRIES], [share for share, _ in EXPIRIES])
    if days is None:
        return now - timedelta(days=rng.uniform(0, 1500)), None
    expires_at = now + timedelta(days=rng.uniform(*days))
    begun = [(life, weight) for life, weight in zip(LIFETIMES, LIFETIME_WEIGHTS, strict=True)
             if expires_at - timedelta(days=life) <= now]  # fmt: skip
    (lifetime,) = rng.choices([life for life, _ in begun], [weight for _, weight in begun])
    return expires_at - timedelta(days=lifetime), expires_at


def _token_name(rng: random.Random) -> str:
    kind = rng.random()
    if kind < ODD_NAME_SHARE:
        return rng.choice(UNICODE_NAMES)
    return rng.choice(HOSTILE_NAMES if kind < 2 * ODD_NAME_SHARE else TOKEN_NAMES)


def _older_job(rng: random.Random, created_at: datetime, expires_at: datetime | None, now: datetime) -> datetime | None:
    """When the registry's older job sent an email about this token, if it did: it missed many tokens."""
    if expires_at is None or rng.random() < 0.6:  # noqa: PLR2004 a share
        return None
    written_at = expires_at - OLDER_JOB_NOTICE
    return written_at if created_at < written_at <= now else None


def _copy(
    connection: psycopg.Connection[Any], table: str, columns: Sequence[str], rows: Iterable[tuple[object, ...]]
) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)
