"""The source: what a query must return, what is refused in one sentence, and tokens read again by id."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import psycopg
import pytest
from sqlalchemy import make_url
from support.pipeline import DAY, NOW, Registry
from support.source import MOMENT, WINDOW, OpenSource, refusal, select, snapshot
from support.waiting import wait_until

from token_pipelines.errors import SourceContractError
from token_pipelines.policy import Window
from token_pipelines.source.contract import DETAIL_COLUMNS
from token_pipelines.token_facts import TOKEN_COLUMNS

# The preset crates_io


def test_preset_gives_every_token_with_its_flags(registry: Registry, source: OpenSource) -> None:
    ada = registry.user("ada", email="ada@example.org")
    bob = registry.user("bob", email="bob@example.org", verified=False)
    eve = registry.user("eve")
    noted = NOW - DAY
    tokens = [
        registry.token(ada, expires_at=NOW + DAY),
        registry.token(ada, expires_at=NOW + 2 * DAY, revoked=True),
        registry.token(bob, expires_at=NOW + 3 * DAY, expiry_notification_at=noted),
        registry.token(eve, expires_at=NOW + 4 * DAY, lifetime=DAY),
    ]
    found = snapshot(source()).sort_values("expires_at", ignore_index=True)
    assert {name: str(dtype) for name, dtype in found.dtypes.items()} == TOKEN_COLUMNS
    never = pd.Timestamp("NaT")
    expected = {
        "token_id": tokens,
        "recipient_id": [str(ada), str(ada), str(bob), str(eve)],
        "created_at": [NOW - 364 * DAY, NOW - 363 * DAY, NOW - 362 * DAY, NOW + 3 * DAY],
        "expires_at": [NOW + number * DAY for number in (1, 2, 3, 4)],
        "unreadable": [""] * 4,
        "has_address": [True, True, True, False],
        "email_verified": [True, True, False, False],
        "revoked": [False, True, False, False],
        "muted": [False] * 4,
        "replaced_at": [never] * 4,
        "last_notified_at": [never, never, noted, never],
    }
    frame = pd.DataFrame({name: pd.Series(values, dtype=TOKEN_COLUMNS[name]) for name, values in expected.items()})
    pd.testing.assert_frame_equal(found, frame)


def test_window_begins_with_and_ends_before(registry: Registry, source: OpenSource) -> None:
    ada = registry.user("ada", email="ada@example.org")
    instants = [
        WINDOW.expires_after - MOMENT,
        WINDOW.expires_after,
        WINDOW.expires_before - MOMENT,
        WINDOW.expires_before,
    ]
    tokens = [registry.token(ada, expires_at=instant) for instant in instants]
    registry.token(ada, expires_at=None)
    assert snapshot(source())["token_id"].tolist() == tokens[1:3]


def test_snapshot_of_nothing_has_no_frames(source: OpenSource) -> None:
    assert list(source().snapshot(WINDOW)) == []


@pytest.mark.parametrize("email", ["", "  "])
def test_blank_address_is_none(registry: Registry, source: OpenSource, email: str) -> None:
    registry.token(registry.user("ada", email=email), expires_at=NOW + DAY)
    assert snapshot(source())["has_address"].tolist() == [False]


def test_instants_keep_their_microseconds(registry: Registry, source: OpenSource) -> None:
    expiry = NOW + DAY + timedelta(microseconds=123_457)
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=expiry)
    (found,) = snapshot(source())["expires_at"].dt.to_pydatetime()
    assert found == expiry


def test_secrets_are_out_of_reach(registry: Registry, source: OpenSource) -> None:
    """A role that may not read the secrets reads everything that we need, and nothing wider is ever selected."""
    role = f"reader_{os.getpid()}"
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY, token=b"a secret")
    columns = {
        "users": "id, gh_login, name",
        "emails": "user_id, email, verified",
        "api_tokens": "id, user_id, name, created_at, last_used_at, revoked, crate_scopes, endpoint_scopes, expired_at,"
        " expiry_notification_at",
    }
    registry.execute(f"CREATE ROLE {role} LOGIN")
    try:
        for table, names in columns.items():
            registry.execute(f"GRANT SELECT ({names}) ON {table} TO {role}")
        url = make_url(registry.url).set(username=role).render_as_string(hide_password=False)
        reader = source(url=url)
        assert len(snapshot(reader)) == 1
        assert reader.resolve(["1"])["email"].tolist() == ["ada@example.org"]
        with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT token FROM api_tokens")
    finally:
        registry.execute(f"DROP OWNED BY {role}")
        registry.execute(f"DROP ROLE {role}")


def test_reads_are_read_only_in_utc_with_timeouts_and_a_name(registry: Registry, source: OpenSource) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY)
    settings = ["application_name", "TimeZone", "transaction_read_only", "statement_timeout", "lock_timeout"]
    shown = " || ' ' || ".join(f"current_setting('{name}')" for name in settings)
    reader = source(select(token_name=shown), statement_timeout="90s", lock_timeout="5s")
    assert reader.resolve(["1"])["token_name"].tolist() == ["token-pipelines source UTC on 90s 5s"]


# Instants and their zones


def naive(registry: Registry, moment: str) -> str:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY)
    return select(expires_at=f"timestamp '{moment}'")


def test_naive_instant_without_a_zone_is_refused(registry: Registry, source: OpenSource) -> None:
    assert refusal(source(naive(registry, "2026-11-21 09:00")), SourceContractError) == (
        "The source query's expires_at has no time zone; set source.timezone to the zone it is kept in."
    )


@pytest.mark.parametrize(
    ("zone", "moment", "instant"),
    [
        ("UTC", "2026-11-21 09:00", datetime(2026, 11, 21, 9, tzinfo=UTC)),
        ("Europe/Berlin", "2026-11-21 09:00", datetime(2026, 11, 21, 8, tzinfo=UTC)),
        ("Europe/Berlin", "2026-10-25 02:30", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),  # twice: the earlier
        ("Europe/Berlin", "2026-03-29 02:30", datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),  # never: the later
        ("America/New_York", "2026-11-21 09:00:00.123456", datetime(2026, 11, 21, 14, 0, 0, 123456, tzinfo=UTC)),
    ],
)
def test_naive_instant_is_meant_in_the_sources_zone(
    registry: Registry, source: OpenSource, zone: str, moment: str, instant: datetime
) -> None:
    wide = Window(expires_after=instant - DAY, expires_before=instant + 400 * DAY)
    (found,) = snapshot(source(naive(registry, moment), timezone=zone), wide)["expires_at"].dt.to_pydatetime()
    assert found == instant


def test_aware_instant_does_not_mind_the_sources_zone(registry: Registry, source: OpenSource) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY)
    berlin = source(timezone="Europe/Berlin")
    (found,) = snapshot(berlin)["expires_at"].dt.to_pydatetime()
    assert found == NOW + DAY
    assert found.astimezone(ZoneInfo("Europe/Berlin")).hour == 10


# Resolving: tokens read again by id


def test_resolve_says_what_the_email_needs(registry: Registry, source: OpenSource) -> None:
    ada = registry.user("ada", email="ada@example.org", name="Ada")
    scopes: dict[str, Any] = {"crate_scopes": ["serde"], "endpoint_scopes": ["yank", "publish-new"]}
    used = NOW - DAY
    one = registry.token(ada, expires_at=NOW + DAY, name="ci <b>", last_used_at=used, **scopes)
    two = registry.token(registry.user("eve"), expires_at=NOW + 999 * DAY, name="ci")
    registry.token(ada, expires_at=NOW + DAY)
    found = source().resolve([one, two, "999"]).sort_values("token_id", ignore_index=True)
    assert list(found.columns) == [*TOKEN_COLUMNS, *DETAIL_COLUMNS]
    assert found[["token_id", *DETAIL_COLUMNS]].to_dict("records") == [
        {
            "token_id": one,
            "token_name": "ci <b>",
            "recipient_name": "Ada",
            "email": "ada@example.org",
            "last_used_at": used,
            "scopes": ("yank", "publish-new", "serde"),
            "locale": None,
            "timezone": None,
        },
        {
            "token_id": two,
            "token_name": "ci",
            "recipient_name": "eve",
            "email": None,
            "last_used_at": None,
            "scopes": (),
            "locale": None,
            "timezone": None,
        },
    ]


def test_resolve_of_what_is_gone_is_empty_with_its_columns(source: OpenSource) -> None:
    found = source().resolve(["1"])
    assert found.empty
    assert list(found.columns) == [*TOKEN_COLUMNS, *DETAIL_COLUMNS]


ODD_IDS = [
    "plain",
    "it's",
    'double"quote',
    "back\\slash",
    "\\'; DROP TABLE api_tokens; --",
    ":expires_after",
    "a::text",
    "%s and %(x)s and 100%",
    "line\nbreak",
    "Groß ünï 发",
    "e'\\x41'",
    "$1 $$",
    " blanks ",
    "",
    "{token_id}",
]


def test_resolve_by_text_ids_with_every_odd_character(registry: Registry, source: OpenSource) -> None:
    registry.execute("CREATE TABLE odd (id text PRIMARY KEY)")
    for odd in ODD_IDS:
        registry.execute("INSERT INTO odd VALUES (%s)", odd)
    query = (
        "SELECT id AS token_id, 7 AS recipient_id, now() AS created_at, now() AS expires_at, id AS token_name,"
        " id AS recipient_name, id AS email FROM odd WHERE now() >= :expires_after AND now() < :expires_before"
    )
    reader = source(query)
    for odd in ODD_IDS:
        assert reader.resolve([odd])["token_id"].tolist() == [odd]
    assert sorted(reader.resolve(ODD_IDS)["token_name"]) == sorted(ODD_IDS)


@pytest.mark.parametrize(
    ("kind", "ids"),
    [
        ("bigint", ["1", "9223372036854775807"]),
        ("uuid", ["0a7a2b5e-9b6f-4d0e-8c34-3f0f6d7f3a10", "ffffffff-ffff-4fff-bfff-ffffffffffff"]),
        ("smallint", ["1", "2"]),
        ("numeric(20,0)", ["12345678901234567890", "1"]),
        ("varchar(10)", ["Ab", "ab"]),
        ("bytea", ["\\x00ff", "\\x01"]),
    ],
)
def test_resolve_in_the_columns_own_type(registry: Registry, source: OpenSource, kind: str, ids: list[str]) -> None:
    registry.execute(f"CREATE TABLE typed (id {kind} PRIMARY KEY)")
    for token_id in ids:
        registry.execute("INSERT INTO typed VALUES (%s)", token_id)
    query = (
        "SELECT id AS token_id, id AS recipient_id, now() AS created_at, now() AS expires_at, 'n'::text AS token_name,"
        " 'n'::text AS recipient_name, 'a@example.org'::text AS email FROM typed"
        " WHERE now() >= :expires_after AND now() < :expires_before"
    )
    reader = source(query)
    assert sorted(
        snapshot(reader, Window(expires_after=NOW - 9999 * DAY, expires_before=NOW + 9999 * DAY))["token_id"]
    ) == sorted(ids)
    for token_id in ids:
        found = reader.resolve([token_id])
        assert (found["token_id"].tolist(), found["recipient_id"].tolist()) == ([token_id], [token_id])


def test_resolve_uses_the_index_of_the_id(registry: Registry, source: OpenSource) -> None:
    """A batch of 200 must not read the whole table."""
    registry.execute("INSERT INTO users (gh_id, gh_login) SELECT g, 'user' || g FROM generate_series(1, 4000) AS g")
    five_each = "SELECT 1 + g / 5, 'n', %s FROM generate_series(0, 19999) AS g"
    many = f"INSERT INTO api_tokens (user_id, name, expired_at) {five_each}"
    registry.execute(many, NOW + DAY)
    registry.execute("ANALYZE users, api_tokens")

    def scans() -> tuple[int, int]:
        [(whole, by_index)] = registry.execute(
            "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'api_tokens'"
        )
        return whole, by_index

    reader = source()
    whole, by_index = scans()
    assert len(reader.resolve(["5", "17"])) == 2
    wait_until(lambda: scans()[1] > by_index, what="the scan of the index, in Postgres' statistics,")
    assert scans()[0] == whole
