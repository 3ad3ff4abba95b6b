"""The registry under chaos: recipients whose due tokens stay in their tiers however long a run takes, and bystanders.

Expiries keep a day's distance from every boundary, so that midnight or a slow machine changes nobody's tier.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg

from token_pipelines.demo.registry import create_schema

DOMAIN = "chaos.example"
BYSTANDERS_PERCENT = 5
SEVERAL_TOKENS_PERCENT = 30

TIERS: Mapping[str, tuple[float, float]] = {  # days until the expiry, from and to
    "month": (12, 25),
    "week": (4, 6),
    "day": (0.25, 0.8),
    "expired": (-2, -0.25),
}
LIFETIME = timedelta(days=365)
FAR = timedelta(days=200)


@dataclass(frozen=True, kw_only=True)
class Population:
    """Who must be told about which tokens, by name; who must hear nothing."""

    due: dict[str, frozenset[str]]
    bystanders: frozenset[str]


def address(recipient_id: str) -> str:
    return f"r{recipient_id}@{DOMAIN}"


def recipient_of(mailbox: str) -> str:
    """The id of the recipient to whom an address belongs."""
    return mailbox.partition("@")[0].removeprefix("r")


def fill(url: str, recipients: int, rng: random.Random, now: datetime) -> Population:
    """Create the registry and fill it; the same for the same ``rng``, but for its instants."""
    bystanders = recipients * BYSTANDERS_PERCENT // 100
    due: dict[str, frozenset[str]] = {}
    with psycopg.connect(url) as connection:
        create_schema(connection)
        tokens: list[tuple[object, ...]] = []
        for number in range(1, recipients + 1):
            rows = list(_tokens(number, rng, now))
            due[str(number)] = frozenset(str(row[1]) for row in rows)
            tokens += rows
        for number in range(recipients + 1, recipients + bystanders + 1):
            tokens.append(_quiet_token(number, now))
        everyone = range(1, recipients + bystanders + 1)
        unverified = {number for number in everyone if number > recipients and number % 3 == 0}
        _copy(connection, "users (id, gh_id, gh_login)", ((n, n, f"user{n}") for n in everyone))
        emails = ((n, address(str(n)), n not in unverified) for n in everyone)
        _copy(connection, "emails (user_id, email, verified)", emails)
        _copy(connection, "api_tokens (user_id, name, created_at, expired_at, revoked)", tokens)
    return Population(due=due, bystanders=frozenset(str(n) for n in everyone if n > recipients))


def _tokens(number: int, rng: random.Random, now: datetime) -> Iterator[tuple[object, ...]]:
    count = rng.randint(2, 3) if rng.randrange(100) < SEVERAL_TOKENS_PERCENT else 1
    for which in range(count):
        span = TIERS[rng.choice(list(TIERS))]
        expires_at = now + timedelta(days=rng.uniform(*span))
        yield number, f"token{number}n{which}x", expires_at - LIFETIME, expires_at, False


def _quiet_token(number: int, now: datetime) -> tuple[object, ...]:
    """A token that leads to no email: of an unverified address, revoked, or far from its end."""
    expires_at = now + (FAR if number % 3 == 1 else timedelta(hours=12))
    return number, f"token{number}n0x", expires_at - LIFETIME, expires_at, number % 3 == 2


def _copy(connection: psycopg.Connection[Any], target: str, rows: Any) -> None:  # noqa: ANN401 -- tuples of any shape
    with connection.cursor() as cursor, cursor.copy(f"COPY {target} FROM STDIN".encode()) as copy:
        for row in rows:
            copy.write_row(row)
