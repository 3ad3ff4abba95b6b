"""The sample registry is filled once, the same way each time, with enough in each tier for several days."""

import re
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from token_pipelines.demo.registry import create_schema, seed

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
GRACE = timedelta(hours=2)
DAY = timedelta(days=1)
TIERS = {"expired": timedelta(0), "day": DAY, "week": 7 * DAY, "month": 30 * DAY}
COLUMNS = {
    "users": "id gh_id gh_login name username account_lock_reason account_lock_until is_admin publish_notifications"
    " created_at",
    "emails": "id user_id email verified token token_generated_at",
    "api_tokens": "id user_id token name created_at last_used_at revoked crate_scopes endpoint_scopes expired_at"
    " expiry_notification_at",
}


def _value(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def _recipients_by_tier(url: str, at: datetime, since: datetime | None = None) -> dict[str, int]:
    """Recipients that a run at ``at`` would write to, by their most urgent tier; ``since``: told until the run then."""
    reach = at + DAY + GRACE
    told_until = {"before": since + DAY + GRACE if since else None, "after": since}
    with psycopg.connect(url) as connection:
        tokens = connection.execute(
            """
            SELECT user_id, created_at, expired_at FROM api_tokens JOIN emails USING (user_id)
            WHERE NOT revoked AND verified AND expired_at IS NOT NULL
            """
        ).fetchall()
    urgent: dict[int, str] = {}
    for user_id, created_at, expired_at in tokens:
        for name, before in TIERS.items():  # the most urgent first
            threshold = expired_at - before
            told = told_until["after" if name == "expired" else "before"]
            if name == "expired":
                due = threshold <= at <= threshold + 3 * DAY + GRACE and expired_at - created_at > DAY
            else:
                due = threshold < reach and expired_at > at and expired_at - created_at > before
            if due:
                if told is None or threshold >= told:
                    ranks = list(TIERS)
                    urgent[user_id] = min(urgent.get(user_id, name), name, key=ranks.index)
                break
    return {name: list(urgent.values()).count(name) for name in TIERS}


def test_seed_makes_crates_io_tables(database_url: str) -> None:
    seed(database_url, now=NOW, users=20, tokens=100)

    with psycopg.connect(database_url) as connection:
        for table, columns in COLUMNS.items():
            found = connection.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_name = %s ORDER BY ordinal_position",
                [table],
            ).fetchall()
            assert [name for (name,) in found] == columns.split()


def test_create_schema_twice_changes_nothing(registry_url: str) -> None:
    with psycopg.connect(registry_url) as connection:
        create_schema(connection)
        connection.execute("INSERT INTO users (gh_id, gh_login) VALUES (1, 'ada')")
        connection.execute("INSERT INTO emails (user_id, email) VALUES (1, 'ada@example.org')")
        connection.execute("INSERT INTO api_tokens (user_id, name) VALUES (1, 'ci')")
        create_schema(connection)
        assert connection.execute("SELECT name, revoked FROM api_tokens").fetchall() == [("ci", False)]


def test_seed_again_changes_nothing(registry_url: str) -> None:
    with psycopg.connect(registry_url) as connection:
        connection.execute("INSERT INTO api_tokens (user_id, name) VALUES (1, 'ci')")

    seed(registry_url, now=NOW)

    assert _value(registry_url, "SELECT count(*) FROM api_tokens") == 1
    assert _value(registry_url, "SELECT count(*) FROM users") == 0


def test_seed_is_the_same_for_the_same_now(registry_url: str, database_url: str) -> None:
    dump = "SELECT md5(string_agg(t::text, '' ORDER BY id)) FROM api_tokens t"
    seed(registry_url, now=NOW, users=200, tokens=1000)
    seed(database_url, now=NOW, users=200, tokens=1000)

    assert _value(registry_url, dump) == _value(database_url, dump)


def test_seed_leaves_room_for_new_rows(registry_url: str) -> None:
    seed(registry_url, now=NOW, users=20, tokens=100)

    assert _value(registry_url, "INSERT INTO users (gh_id, gh_login) VALUES (1, 'ada') RETURNING id") == 21
    assert _value(registry_url, "INSERT INTO api_tokens (user_id, name) VALUES (1, 'ci') RETURNING id") == 101


@pytest.fixture
def seeded_url(registry_url: str) -> str:
    """Give the URL of a registry with the default number of rows."""
    seed(registry_url, now=NOW)
    return registry_url


def test_seed_has_a_realistic_spread(seeded_url: str) -> None:
    def share(condition: str, table: str = "api_tokens") -> float:
        return float(str(_value(seeded_url, f"SELECT avg(({condition})::int) FROM {table}")))  # noqa: S608

    assert _value(seeded_url, "SELECT count(*) FROM users") == 2000
    assert _value(seeded_url, "SELECT count(*) FROM api_tokens") == 10_000
    assert share("id NOT IN (SELECT user_id FROM emails)", "users") == pytest.approx(0.03, abs=0.015)
    assert share("NOT verified", "emails") == pytest.approx(0.05, abs=0.015)
    assert share("revoked") == pytest.approx(0.04, abs=0.015)
    assert share("expired_at IS NULL") > 0.45
    assert share("expired_at < TIMESTAMPTZ '2026-10-01Z'") > 0.1
    assert share("crate_scopes IS NOT NULL") > 0.2
    assert 0.005 < share("expiry_notification_at IS NOT NULL") < 0.2
    assert share("coalesce(expiry_notification_at = expired_at - INTERVAL '3 days', true)") == 1
    assert share("coalesce(created_at <= TIMESTAMPTZ '2026-11-20 09:00Z', false)") == 1
    assert share("coalesce(last_used_at BETWEEN created_at AND TIMESTAMPTZ '2026-11-20 09:00Z', true)") == 1
    assert share("user_id IN (SELECT id FROM users)") == 1
    with psycopg.connect(seeded_url) as connection:
        lifetimes = connection.execute("SELECT DISTINCT expired_at - created_at FROM api_tokens ORDER BY 1").fetchall()
        names = {name for (name,) in connection.execute("SELECT DISTINCT name FROM api_tokens")}
        emails = [email for (email,) in connection.execute("SELECT email FROM emails")]
    assert [lifetime for (lifetime,) in lifetimes] == [*(timedelta(days=n) for n in (7, 30, 60, 90, 365)), None]
    assert {"ci-publish", "laptop", "github-actions release", "<script>alert(1)</script>"} < names
    assert max(map(len, names)) > 255
    assert all(re.fullmatch(r"[a-z0-9]+@example\.(org|com|net)", email) for email in emails)
    assert len(set(emails)) == len(emails)


def test_seed_gives_each_tier_some_dozens_on_the_first_day(seeded_url: str) -> None:
    for days in range(4):
        notices = _recipients_by_tier(seeded_url, NOW - days * DAY)
        assert {tier: number for tier, number in notices.items() if not 24 <= number <= 250} == {}


def test_seed_gives_each_tier_some_dozens_on_the_days_after(seeded_url: str) -> None:
    for days in range(4):
        at = NOW - days * DAY
        notices = _recipients_by_tier(seeded_url, at, since=at - DAY)
        assert {tier: number for tier, number in notices.items() if not 24 <= number <= 72} == {}
