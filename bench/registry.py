"""A sample registry with crates.io's tables, of any size, generated in Postgres.

The tokens that expire soon are spread over the whole table and over all users: the worst case for an index and for the
join.
"""

import time
from dataclasses import dataclass
from typing import Final, LiteralString

import psycopg

from bench.database import NOW, settle
from token_pipelines.demo.postgres import EmbeddedPostgres
from token_pipelines.demo.registry import create_schema

USERS_PER_TOKEN: Final = 0.2
STEP: Final = 2_654_435_761
"""A prime: its multiples modulo the number of tokens visit each of them once, in an order that looks random."""

UNINDEXED: Final[LiteralString] = """
ALTER TABLE users DROP CONSTRAINT users_pkey;
ALTER TABLE emails DROP CONSTRAINT emails_pkey, DROP CONSTRAINT emails_user_id_key;
ALTER TABLE api_tokens DROP CONSTRAINT api_tokens_pkey, DROP CONSTRAINT api_tokens_token_key;
DROP INDEX api_tokens_expired_at, api_tokens_user_id;
"""
INDEXED: Final[LiteralString] = """
ALTER TABLE users ADD PRIMARY KEY (id);
ALTER TABLE emails ADD PRIMARY KEY (id), ADD UNIQUE (user_id);
ALTER TABLE api_tokens ADD PRIMARY KEY (id), ADD UNIQUE (token);
CREATE INDEX api_tokens_expired_at ON api_tokens (expired_at);
CREATE INDEX api_tokens_user_id ON api_tokens (user_id, created_at);
"""
"""With the two indexes that docs/sources/crates_io.md advises."""

USERS: Final[LiteralString] = """
INSERT INTO users (id, gh_id, gh_login, name, username, created_at)
SELECT n, 1000 + n, 'person' || n, 'Person Number ' || n, 'person' || n, '{now}'::timestamptz - interval '4 years'
FROM generate_series(1, {users}) AS n;
INSERT INTO emails (id, user_id, email, verified, token)
SELECT n, n, 'person' || n || '@example.org', n % 20 <> 0, md5(n::text)
FROM generate_series(1, {users}) AS n WHERE n % 33 <> 0;
"""
TOKENS: Final[LiteralString] = """
INSERT INTO api_tokens
    (id, user_id, token, name, created_at, last_used_at, revoked, crate_scopes, endpoint_scopes, expired_at)
SELECT n, 1 + (n::bigint * 7919 + n / {users}) % {users}, decode(md5(n::text), 'hex'),
    'github-actions release ' || n, '{now}'::timestamptz - interval '91 days' - n % 1000 * interval '1 hour',
    '{now}'::timestamptz - n % 70 * interval '1 day', n % 97 = 0, CASE WHEN n % 5 = 0 THEN ARRAY['serde', 'tokio*'] END,
    ARRAY['publish-new', 'publish-update'],
    '{now}'::timestamptz + CASE
        WHEN place < {soon} THEN 60 + place % 2820 -- minutes from now, within two days
        WHEN place < {due} THEN 3000 + place % 41000 -- and within a month
        WHEN place % 2 = 0 THEN 50000 + place % 400000 -- and within a year
    END * interval '1 minute'
FROM generate_series(1, {tokens}) AS n, LATERAL (SELECT (n::bigint * {step}) % {tokens}) AS scattered (place);
"""
"""The remaining tokens (half of those that are not due) never expire."""


@dataclass(frozen=True)
class Registry:
    """A registry's size: all tokens, those that expire within two days (``soon``), those within a month (``due``)."""

    tokens: int
    soon: int
    due: int

    @property
    def database(self) -> str:
        """The name of its database."""
        return f"bench_registry_{self.tokens}"


def make(postgres: EmbeddedPostgres, registry: Registry) -> str:
    """Make a registry of this size; returns its URL."""
    began = time.perf_counter()
    url = postgres.url(registry.database)
    postgres.create_database(registry.database)
    values = {
        "now": NOW.isoformat(),
        "users": int(registry.tokens * USERS_PER_TOKEN),
        "tokens": registry.tokens,
        "soon": registry.soon,
        "due": registry.due,
        "step": STEP,
    }
    with psycopg.connect(url) as connection:
        create_schema(connection)
        for statements in (UNINDEXED, USERS, TOKENS, INDEXED):
            written = statements
            for name, value in values.items():
                written = written.replace(f"{{{name}}}", str(value))
            connection.execute(written)
    settle(url)
    print(f"a registry of {registry.tokens:,} tokens, made in {time.perf_counter() - began:.0f} s")
    return url
