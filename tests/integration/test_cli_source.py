"""The command ``source check`` as a user calls it: what is understood of a query, each fault, and no address."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url
from support.commands import Command
from support.pipeline import DAY, YEAR, Registry

from token_pipelines.operations.source_check import findings
from token_pipelines.operations.source_check.masks import mask_address, mask_name

HOUR = timedelta(hours=1)
Configured = Callable[..., Command]

QUERY = """
SELECT id AS token_id, user_id AS recipient_id, created_at, expired_at AS expires_at, name AS token_name,
    NULL::text AS recipient_name, 'someone@example.org' AS email, {more} AS {name}
FROM api_tokens WHERE expired_at >= :expires_after AND expired_at < :expires_before
"""


NOBODY = (
    "The source query returned no row at all in the widest window of a run, so that nobody would be told; if tokens "
    "expire in it, look at what the query's WHERE and its joins leave out."
)


@pytest.fixture
def now() -> datetime:
    return datetime.now(UTC)


def check(command: Command, status: int = 0) -> dict[str, Any]:
    said = command("source check", "--json")
    assert (said.status, said.err) == (status, "")
    assert "example" not in said.out
    found: dict[str, Any] = json.loads(said.out)
    return found


def people(registry: Registry, now: datetime) -> dict[str, str]:
    """Tokens in every state that matters, by what they are."""
    ada = registry.user("ada", email="ada@example.org", name="Ada Lovelace")
    bob = registry.user("bob", email="bob@example.org", verified=False)
    carol = registry.user("carol")
    dave = registry.user("dave", email="no address at all, example.org")
    tomorrow = now + 20 * HOUR
    return {
        "due": registry.token(ada, expires_at=tomorrow, name="deploy@example.org"),
        "unverified": registry.token(bob, expires_at=tomorrow),
        "nobody": registry.token(carol, expires_at=tomorrow),
        "unusable": registry.token(dave, expires_at=tomorrow + HOUR, name="laptop"),
        "revoked": registry.token(ada, expires_at=tomorrow, revoked=True),
        "short": registry.token(ada, expires_at=tomorrow, lifetime=DAY),
    }


def test_check_shows_rows_as_they_are_understood(configured: Configured, registry: Registry, now: datetime) -> None:
    """One of each kind, what is due among them; instants in UTC, addresses and names masked."""
    tokens = people(registry, now)
    found = check(configured())
    assert found["columns"]["missing"].keys() == {"muted", "locale", "timezone"}
    assert found["outcomes"] == {
        "due": 2,
        "unverified_address": 1,
        "no_address": 1,
        "revoked": 1,
        "lifetime_too_short": 1,
    }
    assert (found["rows"], found["faults"], found["advice"]) == (6, [], [])
    samples = {sample["token_id"]: sample for sample in found["samples"]}
    assert len(samples) == 5
    ada = samples[tokens["due"]]
    assert (ada["token_name"], ada["recipient_name"], ada["address"]) == ("…", "A…", "a…@….org")
    assert (ada["tier"], ada["reason"], ada["why"]) == ("day", None, "it is due")
    assert (ada["expires_at"], ada["lifetime_seconds"]) == (written(now + 20 * HOUR), YEAR.total_seconds())
    assert ada["threshold"] == written(now + 20 * HOUR - DAY)
    assert samples[tokens["unverified"]]["reason"] == "unverified_address"
    assert (samples[tokens["nobody"]]["address"], samples[tokens["nobody"]]["reason"]) == ("", "no_address")
    assert samples[tokens["short"]]["why"] == "the token's lifetime is too short for the tier"


def written(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")


def test_check_prints_for_a_person(configured: Configured, registry: Registry, now: datetime) -> None:
    """And says of an address that cannot be written to just that."""
    tokens = people(registry, now)
    registry.execute("DELETE FROM api_tokens WHERE id <> %s", int(tokens["unusable"]))
    said = configured()("source check")
    assert (said.status, said.err) == (0, "")
    assert "example" not in said.out
    lines = said.out.splitlines()
    assert lines[1] == "Without muted: nobody counts as muted"
    assert lines[-7:] == [
        f"token {tokens['unusable']}, recipient 4",
        "  name       laptop",
        "  recipient  d…, …",
        f"  created    {(now + 21 * HOUR - YEAR):%Y-%m-%dT%H:%M:%SZ}",
        f"  expires    {(now + 21 * HOUR):%Y-%m-%dT%H:%M:%SZ}, in 20 hours; it lives 365 days",
        f"  tier       day, which began at {(now - 3 * HOUR):%Y-%m-%dT%H:%M:%SZ}",
        "  result     bad_address: the address cannot be written to",
    ]


def test_check_looks_further_when_little_expires_now(configured: Configured, registry: Registry, now: datetime) -> None:
    """Up to as far as a run looks, and no further."""
    ada = registry.user("ada", email="ada@example.org")
    registry.token(ada, expires_at=now + 29 * DAY)
    registry.token(ada, expires_at=now + 60 * DAY)
    found = check(configured())
    assert (found["rows"], [sample["tier"] for sample in found["samples"]]) == (1, ["month"])
    registry.execute("DELETE FROM api_tokens")
    said = configured()("source check")
    assert said.status == 0
    assert ": only the columns were checked." in said.out
    assert said.out.splitlines()[-1] == NOBODY
    assert check(configured())["advice"] == [NOBODY]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        (QUERY.replace("id AS token_id,", ""), "does not return token_id; add it to the SELECT"),
        (QUERY.replace("expired_at AS", "expired_at::date AS"), "expires_at is a DATE; say in SQL"),
        (QUERY.replace("api_tokens WHERE", "tokens WHERE"), 'relation "tokens" does not exist'),
        (QUERY + "LIMIT 5", "remove LIMIT or FETCH FIRST"),
    ],
    ids=["no-token-id", "date", "no-such-table", "limit"],
)
def test_check_says_a_fault_of_the_query_in_one_sentence(
    configured: Configured, tmp_path: Path, query: str, sentence: str
) -> None:
    (tmp_path / "tokens.sql").write_text(query.format(more="true", name="email_verified"), encoding="utf-8")
    said = configured(source={"query": "tokens.sql"})("source check")
    assert (said.status, said.out) == (2, "")
    assert sentence in said.err
    assert len(said.err.splitlines()) == 1


def test_check_says_a_fault_of_a_row(configured: Configured, tmp_path: Path, registry: Registry, now: datetime) -> None:
    """The database answers, and one of its rows breaks the contract: exit status 1."""
    people(registry, now)
    query = QUERY.replace("user_id AS recipient_id", "'someone@example.org' AS recipient_id")
    (tmp_path / "tokens.sql").write_text(query.format(more="true", name="email_verified"), encoding="utf-8")
    said = configured(source={"query": "tokens.sql"})("source check", "--json")
    assert (said.status, said.out) == (1, "")
    assert "recipient_id holds an @" in said.err
    assert "example.org" not in said.err


def test_check_finds_a_query_that_answers_otherwise_by_id(
    configured: Configured, tmp_path: Path, registry: Registry, now: datetime
) -> None:
    """Row numbers count anew when other rows are asked for."""
    people(registry, now)
    registry.token(registry.user("eve"), expires_at=now - YEAR)
    query = QUERY.replace("id AS token_id", "row_number() OVER (ORDER BY expired_at) AS token_id")
    (tmp_path / "tokens.sql").write_text(query.format(more="true", name="email_verified"), encoding="utf-8")
    found = check(configured(source={"query": "tokens.sql"}), status=1)
    [fault] = found["faults"]
    assert fault.startswith("Asked again by id, as just before sending, the source query does not return the same")


def test_check_says_when_the_filter_does_not_reach_the_tables(
    configured: Configured, tmp_path: Path, registry: Registry, now: datetime
) -> None:
    """A window over all rows keeps it out; over each token's own it does not, and a mark lets it in."""
    people(registry, now)
    query = QUERY.format(more="{more}", name="last_used_at")

    def advice(more: str, mark: str = "") -> list[str]:
        (tmp_path / "tokens.sql").write_text(query.format(more=more) + mark, encoding="utf-8")
        found: list[str] = check(configured(source={"query": "tokens.sql"}))["advice"]
        return found

    over_all = "max(last_used_at) OVER (PARTITION BY user_id)"
    [sentence] = advice(over_all)
    assert sentence.startswith("The database would read everything to find a few tokens by id")
    assert advice("max(last_used_at) OVER (PARTITION BY id)") == []
    assert advice("last_used_at") == []
    assert advice(over_all, mark="/* token_ids: api_tokens.id */") == []


def test_check_says_when_reading_by_id_is_slow(
    configured: Configured, registry: Registry, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    people(registry, now)
    monkeypatch.setattr(findings, "SLOW_S", 0)
    [sentence] = check(configured())["advice"]
    assert "tokens by id took" in sentence
    assert "index the column behind token_id, or mark its place in the query" in sentence


def test_check_names_a_column_that_is_not_used(
    configured: Configured, tmp_path: Path, registry: Registry, now: datetime
) -> None:
    people(registry, now)
    query = QUERY.format(more="now()", name="last_notification_at")
    (tmp_path / "tokens.sql").write_text(query, encoding="utf-8")
    found = check(configured(source={"query": "tokens.sql"}))
    assert found["columns"]["unused"] == ["last_notification_at"]
    assert found["advice"] == ["The column last_notification_at is not used; did you mean last_notified_at?"]


def test_check_says_that_sqlite_would_never_return_a_number(configured: Configured, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute("CREATE TABLE api_tokens (id integer, user_id, created_at, expired_at integer, name)")
        connection.execute("INSERT INTO api_tokens VALUES (4711, 7, '2026-01-01T00:00:00Z', 1795338000, 'ci')")
    query = QUERY.replace("NULL::text", "NULL").format(more="1", name="email_verified")
    (tmp_path / "tokens.sql").write_text(query, encoding="utf-8")
    said = configured(source={"url": "sqlite:///app.db", "query": "tokens.sql"})("source check")
    assert (said.status, said.out) == (2, "")
    assert said.err == (
        "The source query's expires_at is int64, a number and not an instant; if it counts seconds since 1970, write"
        " (datetime(expires_at, 'unixepoch') || 'Z'); divide milliseconds by 1000, and of a Julian day write"
        " (datetime(expires_at) || 'Z').\n"
    )


MARK = "UPDATE api_tokens SET expiry_notification_at = :sent_at WHERE id IN :token_ids"


@pytest.mark.parametrize(
    ("on_sent", "sentence"),
    [
        (
            MARK.replace("expiry_", "no_"),
            'column "no_notification_at" of relation "api_tokens" does not exist; fix the',
        ),
        (MARK.replace(":sent_at", "1"), "is of type timestamp with time zone but expression is of type integer; fix"),
        ("DELETE FROM api_tokens WHERE id IN :token_ids", None),
        (MARK, None),
    ],
)
def test_check_tries_what_is_run_after_sending(
    configured: Configured, registry: Registry, now: datetime, on_sent: str, sentence: str | None
) -> None:
    """In a transaction that is rolled back, for no token: it changes nothing."""
    people(registry, now)
    before = registry.execute("SELECT * FROM api_tokens ORDER BY id")
    found = check(configured(source={"on_sent": on_sent}), status=0 if sentence is None else 1)
    assert registry.execute("SELECT * FROM api_tokens ORDER BY id") == before
    if sentence is None:
        assert found["faults"] == []
    else:
        [fault] = found["faults"]
        assert fault.startswith("source.on_sent failed in the database of source.url (")
        assert sentence in fault


def test_check_says_that_the_account_may_not_write(configured: Configured, registry: Registry, now: datetime) -> None:
    people(registry, now)
    registry.execute("CREATE ROLE may_only_read LOGIN")
    registry.execute("GRANT SELECT ON api_tokens TO may_only_read")
    url = make_url(registry.url).set(username="may_only_read").render_as_string(hide_password=False)
    try:
        [fault] = check(configured(source={"on_sent": MARK, "on_sent_url": url}), status=1)["faults"]
        away = "postgresql://writer@127.0.0.1:1/registry"
        [unreachable] = check(configured(source={"on_sent": MARK, "on_sent_url": away}), status=1)["faults"]
    finally:
        registry.execute("DROP OWNED BY may_only_read")
        registry.execute("DROP ROLE may_only_read")
    assert "permission denied for table api_tokens; fix the statement, or the rights of the account." in fault
    assert unreachable.startswith("The database of source.on_sent_url (writer@127.0.0.1:1/registry) cannot be reached;")


def test_check_needs_no_ledger(configured: Configured, registry: Registry, now: datetime) -> None:
    people(registry, now)
    found = check(configured(ledger={"url": "postgresql://ops@127.0.0.1:1/ops"}))
    assert found["outcomes"]["due"] == 2
    [advice] = found["advice"]
    assert advice.startswith(
        "Decided as if nothing had been told yet. The database of ledger.url (ops@127.0.0.1:1/ops)"
    )


def test_masks_show_no_more_than_a_letter_and_the_top_level_domain() -> None:
    addresses = {
        "": "",
        "ada@example.org": "a…@….org",
        "a@b.co": "a…@….co",
        "юля@пример.рф": "ю…@….рф",
        "+tag@mail.example.co.uk": "…@….uk",
        "root@localhost": "r…@…",
        "ada at example.org": "…",
        "ada@example.org, bob@example.org": "…",
    }
    assert {address: mask_address(address) for address in addresses} == addresses
    names = {"": "", "Ada Lovelace": "A…", "ada@example.org": "a…", "\u200b": "", "<b>": "…"}
    assert {name: mask_name(name) for name in names} == names
