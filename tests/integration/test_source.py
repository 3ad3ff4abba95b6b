"""The source: what a query must return, what is refused in one sentence, and tokens read again by id."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import psycopg
import pytest
from pipeline import DAY, NOW, Registry
from sqlalchemy import make_url
from waiting import wait_until

from token_pipelines.config import Source as SourceConfig
from token_pipelines.errors import ConfigError, SourceContractError, SourceError, TokenPipelinesError
from token_pipelines.policy import TOKEN_COLUMNS, Window
from token_pipelines.source.contract import FACT_COLUMNS
from token_pipelines.source.source import Source

WINDOW = Window(expires_after=NOW - 3 * DAY, expires_before=NOW + 30 * DAY)
MOMENT = timedelta(microseconds=1)

OpenSource = Callable[..., Source]


@pytest.fixture
def registry(registry_url: str) -> Registry:
    return Registry(registry_url)


@pytest.fixture
def source(registry_url: str, tmp_path: Path) -> OpenSource:
    """Open the source with the preset, or with a query of one's own; ``wrong`` keys change the config."""

    def open_source(query: str = "crates_io", **keys: object) -> Source:
        if " " in query:
            (tmp_path / "tokens.sql").write_text(query, encoding="utf-8")
            query = "tokens.sql"
        return Source(SourceConfig.model_validate({"url": registry_url, "query": query} | keys), tmp_path)

    return open_source


COLUMNS = {
    "token_id": "id",
    "recipient_id": "user_id",
    "created_at": "created_at",
    "expires_at": "expired_at",
    "token_name": "name",
    "recipient_name": "'Ada'::text",
    "email": "'ada@example.org'::text",
}


def select(tables: str = "api_tokens", condition: str = "true", **changes: str) -> str:
    """A query as an operator writes it; ``changes`` replace a column's expression, or add one."""
    columns = ", ".join(f"{what} AS {name}" for name, what in (COLUMNS | changes).items())
    between = "expired_at >= :expires_after AND expired_at < :expires_before"
    return f"SELECT {columns} FROM {tables} WHERE {condition} AND {between}"  # noqa: S608 -- a test's own


def select_without(name: str) -> str:
    return select().replace(f"{COLUMNS[name]} AS {name}, ", "").replace(f", {COLUMNS[name]} AS {name}", "")


def snapshot(source: Source, window: Window = WINDOW) -> pd.DataFrame:
    frames = list(source.snapshot(window))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(TOKEN_COLUMNS))


def refusal(source: Source, kind: type[TokenPipelinesError]) -> str:
    """The one sentence with which a snapshot is refused."""
    with pytest.raises(kind) as caught:
        snapshot(source)
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith(".")
    assert caught.value.__context__ is None or caught.value.__suppress_context__, "no cause that may quote values"
    return said


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
    settings = ["application_name", "TimeZone", "default_transaction_read_only", "statement_timeout", "lock_timeout"]
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


# What a query must return


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (
            select(expires_at="expired_at::date"),
            (
                "The source query's expires_at is a DATE; say in SQL at which instant of that day it is meant, for"
                " example (expires_at::timestamp AT TIME ZONE 'UTC')."
            ),
        ),
        (
            select(last_used_at="now()::date"),
            (
                "The source query's last_used_at is a DATE; say in SQL at which instant of that day it is meant, for"
                " example (last_used_at::timestamp AT TIME ZONE 'UTC')."
            ),
        ),
        (
            select(created_at="extract(epoch FROM created_at)::bigint"),
            (
                "The source query's created_at is int64, a number and not an instant; if it counts seconds since 1970,"
                " write to_timestamp(created_at); divide milliseconds by 1000."
            ),
        ),
        (
            select(expires_at="expired_at::text"),
            (
                "The source query's expires_at is string, not an instant; convert it in SQL, for example"
                " (expires_at::timestamptz)."
            ),
        ),
        (
            select(email_verified="1"),
            "The source query's email_verified is int32, not a boolean; compare or cast it in SQL.",
        ),
        (select(muted="'no'::text"), "The source query's muted is string, not a boolean; compare or cast it in SQL."),
        (select(email="7"), "The source query's email is int32, not text; cast it to text in SQL."),
        (
            select(locale="ARRAY['de']"),
            "The source query's locale is list<item: string>, not text; cast it to text in SQL.",
        ),
        (select().replace("SELECT", "SELECT 1 AS token_id,"), "The source query returns token_id twice; keep one."),
        *(
            (
                select_without(name),
                f"The source query does not return {name}; add it to the SELECT (docs/sources tells what it means).",
            )
            for name in COLUMNS
        ),
    ],
)
def test_column_that_is_not_as_agreed_is_named(registry: Registry, source: OpenSource, query: str, said: str) -> None:
    """Even before there are any rows: the columns are known from the statement."""
    assert registry.execute("SELECT 1 FROM api_tokens") == []
    assert refusal(source(query), SourceContractError) == said


@pytest.mark.parametrize(
    ("column", "sample"),
    [
        ("expires_at", "(token_id 1)"),
        ("created_at", "(token_id 1)"),
        ("recipient_id", "(token_id 1)"),
        ("token_id", "(recipient_id 1)"),
    ],
)
def test_null_that_must_not_be_is_named_with_a_sample(
    registry: Registry, source: OpenSource, column: str, sample: str
) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY)
    null = "NULL::timestamptz" if column.endswith("_at") else "NULL::int"
    said = f"The source query returns a null {column} {sample}; exclude or fill such rows in SQL."
    assert refusal(source(select(**{column: null})), SourceError) == said


def test_address_for_an_id_is_refused_and_not_repeated(registry: Registry, source: OpenSource) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY)
    said = refusal(source(select(recipient_id="'ada@example.org'::text")), SourceError)
    assert said == (
        "The source query's recipient_id holds an @ (token_id 1); an address must not be stored: return the person's"
        " opaque id instead."
    )


def test_join_that_multiplies_rows_is_named_with_a_sample(registry: Registry, source: OpenSource) -> None:
    ada = registry.user("ada", email="ada@example.org")
    registry.token(ada, expires_at=NOW + DAY)
    twice = registry.token(ada, expires_at=NOW + 2 * DAY)
    query = select(tables=f"api_tokens JOIN generate_series(1, 2) AS g ON g = 1 OR id = {twice}")
    assert refusal(source(query), SourceError) == (
        f"The source query returns a token and recipient more than once (token_id {twice}); a join multiplies its"
        " rows: aggregate, or join on a unique column."
    )


def test_two_recipients_of_one_token_are_no_duplicate(registry: Registry, source: OpenSource) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY)
    found = snapshot(source(select(tables="api_tokens CROSS JOIN generate_series(7, 8) AS g", recipient_id="g")))
    assert sorted(zip(found["token_id"], found["recipient_id"], strict=True)) == [("1", "7"), ("1", "8")]


def test_optional_columns_have_their_meaning_when_missing_and_when_null(registry: Registry, source: OpenSource) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY)
    missing = snapshot(source(select()))
    nulls = snapshot(source(select(email_verified="NULL::bool", revoked="NULL::bool", muted="NULL::bool")))
    flags = ["email_verified", "revoked", "muted"]
    assert missing[flags].to_numpy().tolist() == [[True, False, False]]
    assert nulls[flags].to_numpy().tolist() == [[False, False, False]]


# The text of a query


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (
            select().replace("expired_at >= :expires_after AND ", ""),
            (
                "tokens.sql does not use :expires_after; filter with expires_at >= :expires_after AND expires_at <"
                " :expires_before."
            ),
        ),
        (
            select().replace("expired_at < :expires_before", "true -- :expires_before"),
            (
                "tokens.sql does not use :expires_before; filter with expires_at >= :expires_after AND expires_at <"
                " :expires_before."
            ),
        ),
        *(
            (
                f"{select()} {limit}",
                "tokens.sql limits its rows, so that tokens would be left out in silence; remove LIMIT or FETCH FIRST.",
            )
            for limit in ("LIMIT 10", "limit :expires_after", "FETCH FIRST 10 ROWS ONLY", "ORDER BY 1 LIMIT\n5")
        ),
    ],
)
def test_query_that_would_lose_tokens_is_refused_when_loaded(source: OpenSource, query: str, said: str) -> None:
    with pytest.raises(SourceContractError) as caught:
        source(query)
    assert str(caught.value).endswith(said)


def test_limit_in_a_comment_or_a_name_is_none(registry: Registry, source: OpenSource) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY, name="limit 5")
    query = f"-- no LIMIT 10 here\n{select(scopes='name')} /* LIMIT 10 */ ;\n"
    assert len(snapshot(source(query))) == 1


def test_query_may_end_in_a_comment_and_hold_colons_and_percents(registry: Registry, source: OpenSource) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY)
    odd = select(condition="name NOT LIKE '%%%s%'", token_name=r"'100%% \:x 10\:30 %(y)s'::text", scopes="'10%'::text")
    found = source(f"{odd} -- the end: 100%").resolve(["1"])
    assert found[["token_name", "scopes"]].to_numpy().tolist() == [["100%% :x 10:30 %(y)s", ("10%",)]]


def test_unknown_bind_is_refused(source: OpenSource) -> None:
    with pytest.raises(SourceContractError) as caught:
        source(select(condition="user_id = :user"))
    said = "tokens.sql asks for :user; the only binds are :expires_after and :expires_before (write \\: for a colon)."
    assert str(caught.value).endswith(said)


def test_unknown_preset_and_missing_file_are_refused(source: OpenSource, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"source.query: 'npm' is not a preset; take one of .*crates_io.*, or give"):
        source("npm")
    with pytest.raises(ConfigError) as caught:
        source("missing.sql")
    assert str(caught.value) == (
        f"source.query: {tmp_path / 'missing.sql'} cannot be read (FileNotFoundError); check the path and its"
        " permissions."
    )


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (select(token_name="nam"), 'column "nam" does not exist; fix source.query.'),
        (select(tables="api_tokns"), 'relation "api_tokns" does not exist; fix source.query.'),
        (f"{select()} AND", "syntax error at end of input; fix source.query."),
    ],
)
def test_query_that_the_database_refuses_is_blamed_in_its_words(source: OpenSource, query: str, said: str) -> None:
    found = refusal(source(query), SourceContractError)
    assert found.startswith("The source query is not accepted by the database: ")
    assert said.removesuffix("; fix source.query.").split(" at ")[0] in found
    assert found.endswith("; fix source.query.")


# The database


def loopback_with_nobody() -> Iterator[int]:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        yield probe.getsockname()[1]


def test_database_that_does_not_exist_is_one_sentence(registry_url: str, source: OpenSource) -> None:
    url = make_url(registry_url).set(database="registri", password="hush-hush")
    said = refusal(source(url=url.render_as_string(hide_password=False)), SourceError)
    assert said == (
        f"The database of source.url (postgres@{url.query['host']}/registri) has no such database; check the name"
        " after the last / of the URL, or create the database."
    )


def test_user_that_does_not_exist_is_one_sentence(registry_url: str, source: OpenSource) -> None:
    url = make_url(registry_url).set(username="nobody-here", password="hush-hush")
    said = refusal(source(url=url.render_as_string(hide_password=False)), SourceError)
    assert "nobody-here@" in said
    assert said.endswith("does not know the user; check the user in the URL, or create the role.")
    assert "hush" not in said


def test_database_that_nobody_serves_is_one_sentence(source: OpenSource) -> None:
    for port in loopback_with_nobody():
        said = refusal(source(url=f"postgresql://reader:hush-hush@127.0.0.1:{port}/registry"), SourceError)
        assert said == (
            f"The database of source.url (reader@127.0.0.1:{port}/registry) cannot be reached; check that it runs and"
            " that this machine may connect."
        )


def test_host_that_is_not_known_is_one_sentence(source: OpenSource) -> None:
    said = refusal(source(url="postgresql://reader@nowhere.invalid/registry"), SourceError)
    assert said.startswith("The database of source.url (reader@nowhere.invalid/registry) has a host name that is not")


def test_password_that_is_refused_is_one_sentence_without_it(
    registry_url: str, source: OpenSource, password_only: str
) -> None:
    url = make_url(registry_url).set(username=password_only, password="wrong-hush-hush")
    said = refusal(source(url=url.render_as_string(hide_password=False)), SourceError)
    assert said.endswith(" refused the login; check the user and the password.")
    assert "hush" not in said
    no_password = make_url(registry_url).set(username=password_only)
    said = refusal(source(url=no_password.render_as_string(hide_password=False)), SourceError)
    assert said.endswith(" asks for a password; set the whole URL in the environment (TOKEN_PIPELINES__SOURCE__URL).")


@pytest.fixture
def password_only(registry: Registry) -> Iterator[str]:
    """A role of this server that must give a password."""
    role = f"careful_{os.getpid()}"
    [(file,)] = registry.execute("SHOW hba_file")
    before = Path(file).read_bytes()
    registry.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'right'")
    Path(file).write_bytes(f"local all {role} scram-sha-256\n".encode() + before)
    registry.execute("SELECT pg_reload_conf()")
    yield role
    Path(file).write_bytes(before)
    registry.execute("SELECT pg_reload_conf()")
    registry.execute(f"DROP ROLE {role}")


def test_missing_right_is_one_sentence(registry: Registry, source: OpenSource) -> None:
    role = f"stranger_{os.getpid()}"
    registry.execute(f"CREATE ROLE {role} LOGIN")
    try:
        url = make_url(registry.url).set(username=role).render_as_string(hide_password=False)
        said = refusal(source(url=url), SourceError)
        assert said.endswith("refused the access; grant it: docs/failures.md lists the rights that are needed.")
    finally:
        registry.execute(f"DROP ROLE {role}")


def test_statement_that_takes_too_long_is_one_sentence(registry: Registry, source: OpenSource) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY)
    slow = source(select(condition="pg_sleep(5) IS NOT NULL"), statement_timeout="1s")
    assert refusal(slow, SourceError).endswith(
        "took too long; raise source.statement_timeout, or add the index in docs/sources."
    )


def test_lock_of_a_migration_is_one_sentence(registry: Registry, source: OpenSource) -> None:
    with psycopg.connect(registry.url) as migration:
        migration.execute("LOCK TABLE api_tokens")
        said = refusal(source(lock_timeout="1s"), SourceError)
    assert said.endswith("waited too long for a lock; run again when the migration on it has finished.")


def test_value_that_cannot_be_cast_is_not_repeated(registry: Registry, source: OpenSource) -> None:
    """Postgres quotes the value in its error; we must not."""
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY, name="hush-hush")
    said = refusal(source(select(condition="name::int > 0")), SourceError)
    assert "hush" not in said


def test_reading_stops_at_the_deadline(registry: Registry, source: OpenSource) -> None:
    """The statement that runs is interrupted: nothing of it is left on the server."""
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY)
    late = source(select(condition="pg_sleep(200) IS NOT NULL"), deadline="1s")
    said = "Reading the source took longer than source.deadline; raise it, or narrow the query."
    assert refusal(late, SourceError) == said
    running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%%pg_sleep(200)%%'"
    assert registry.execute(f"{running} AND pid <> pg_backend_pid()") == [(0,)]


# Resolving: tokens read again by id


def test_resolve_says_what_the_email_needs(registry: Registry, source: OpenSource) -> None:
    ada = registry.user("ada", email="ada@example.org", name="Ada")
    scopes: dict[str, Any] = {"crate_scopes": ["serde"], "endpoint_scopes": ["yank", "publish-new"]}
    used = NOW - DAY
    one = registry.token(ada, expires_at=NOW + DAY, name="ci <b>", last_used_at=used, **scopes)
    two = registry.token(registry.user("eve"), expires_at=NOW + 999 * DAY, name="ci")
    registry.token(ada, expires_at=NOW + DAY)
    found = source().resolve([one, two, "999"]).sort_values("token_id", ignore_index=True)
    assert list(found.columns) == [*TOKEN_COLUMNS, *FACT_COLUMNS]
    assert found[["token_id", *FACT_COLUMNS]].to_dict("records") == [
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
    assert list(found.columns) == [*TOKEN_COLUMNS, *FACT_COLUMNS]


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
