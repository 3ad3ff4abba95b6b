"""One promise for every database: the same tokens come as the same frames, however their instants are kept.

Postgres is read through ADBC, MariaDB and SQLite through SQLAlchemy's rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from support.databases import Database, OpenDatabase

from token_pipelines.policy import Window
from token_pipelines.token_facts import TOKEN_COLUMNS

BERLIN = "Europe/Berlin"
WINDOW = Window(
    expires_after=datetime(2026, 10, 20, 9, tzinfo=UTC), expires_before=datetime(2026, 11, 21, 11, tzinfo=UTC)
)
SECOND = timedelta(seconds=1)
NEVER = pd.Timestamp("NaT")

Write = Callable[[datetime], str]


def clock(zone: str, form: str = "%Y-%m-%d %H:%M:%S.%f") -> Write:
    """Write an instant as a clock in the zone shows it."""
    return lambda instant: instant.astimezone(ZoneInfo(zone)).strftime(form)


def new_york(instant: datetime) -> str:
    return instant.astimezone(ZoneInfo("America/New_York")).isoformat()


def mixed(instant: datetime) -> str:
    """As several programs have written it over the years: T, blank, Z, offset, with and without a fraction."""
    forms = [
        clock("UTC", "%Y-%m-%dT%H:%M:%S.%fZ"),
        clock("UTC", "%Y-%m-%d %H:%M:%S.%f+00:00"),
        clock("Asia/Tokyo", "%Y-%m-%dT%H:%M:%S.%f+09:00"),
        clock("UTC", "%Y-%m-%d %H:%M:%S.%f000"),
        new_york,
    ]
    return forms[int(instant.timestamp() // 60) % len(forms)](instant)


@dataclass(frozen=True)
class Form:
    """How a database keeps instants: a column's type, how a value is written, how the query must be."""

    database: str
    kind: str
    write: Write
    zone: str | None = None
    expression: str = "{}"
    between: str = "{0} >= :expires_after AND {0} < :expires_before"
    whole_seconds: bool = False


FORMS = {
    "postgres timestamptz": Form("postgres", "timestamptz", clock(BERLIN, "%Y-%m-%d %H:%M:%S.%f%z")),
    "postgres timestamptz, a zone set": Form("postgres", "timestamptz", clock("UTC", "%Y-%m-%d %H:%M:%S.%f%z"), BERLIN),
    "postgres timestamp, UTC": Form("postgres", "timestamp", clock("UTC"), "UTC"),
    "postgres timestamp, Berlin": Form("postgres", "timestamp", clock(BERLIN), BERLIN),
    "mariadb datetime, UTC": Form("mariadb", "datetime(6)", clock("UTC"), "UTC"),
    "mariadb datetime, Berlin": Form("mariadb", "datetime(6)", clock(BERLIN), BERLIN),
    "mariadb timestamp": Form("mariadb", "timestamp(6) NULL", clock("UTC")),
    "mariadb timestamp, a zone set": Form("mariadb", "timestamp(6) NULL", clock("UTC"), BERLIN),
    "mariadb epoch": Form(
        "mariadb",
        "bigint",
        lambda instant: f"{instant.timestamp():.0f}",
        "UTC",
        "from_unixtime({})",
        whole_seconds=True,
    ),
    "sqlite text with a blank, UTC": Form("sqlite", "datetime", clock("UTC"), "UTC"),
    "sqlite text with a blank, Berlin": Form("sqlite", "text", clock(BERLIN), BERLIN),
    "sqlite text with T and Z": Form("sqlite", "text", clock("UTC", "%Y-%m-%dT%H:%M:%S.%fZ")),
    "sqlite text with an offset": Form("sqlite", "text", clock("Asia/Tokyo", "%Y-%m-%d %H:%M:%S.%f+09:00")),
    "sqlite text, mixed": Form("sqlite", "text", mixed, "UTC"),
    "sqlite text, mixed, compared as instants": Form(
        "sqlite",
        "text",
        mixed,
        "UTC",
        between="julianday({0}) >= julianday(:expires_after) AND julianday({0}) < julianday(:expires_before)",
    ),
    "sqlite epoch": Form(
        "sqlite",
        "integer",
        lambda instant: f"{instant.timestamp():.0f}",
        None,
        "datetime({}, 'unixepoch') || 'Z'",
        whole_seconds=True,
    ),
}


EXPIRIES = {
    1: datetime(2026, 11, 20, 9, 0, 0, 123456, tzinfo=UTC),
    2: WINDOW.expires_after,
    3: WINDOW.expires_before - SECOND,
    4: datetime(2026, 10, 25, 0, 30, tzinfo=UTC),  # in Berlin the first 02:30 of that night
    5: datetime(2026, 11, 1, 0, 0, tzinfo=UTC),
}
OUTSIDE = {
    6: WINDOW.expires_after - SECOND,
    7: WINDOW.expires_before,
    8: WINDOW.expires_before + timedelta(hours=30),
    9: datetime(2020, 1, 1, tzinfo=UTC),
    10: datetime(2037, 1, 1, tzinfo=UTC),
}
CREATED = datetime(2026, 1, 1, tzinfo=UTC)


def fill(database: Database, form: Form) -> None:
    boolean = "boolean" if form.database == "postgres" else "integer"
    columns = f"id bigint PRIMARY KEY, user_id int, made {form.kind}, ends {form.kind}, used {form.kind}"
    database.execute(
        f"CREATE TABLE tokens ({columns}, name varchar(80), dead {boolean}, scopes varchar(80))",
        "CREATE TABLE users (id int PRIMARY KEY, name varchar(80), email varchar(80))",
        "INSERT INTO users VALUES (1, 'Ada', 'ada@example.org'), (2, 'Eve', NULL), (3, 'Bob', '  ')",
    )
    for token_id, expiry in (EXPIRIES | OUTSIDE).items():
        ends, made = form.write(expiry), form.write(CREATED)
        used = f"'{form.write(CREATED + SECOND)}'" if token_id == 1 else "NULL"
        dead = {1: "NULL", 4: "true"}.get(token_id, "false")
        values = f"{token_id}, {token_id % 3 + 1}, '{made}', '{ends}', {used}, 'ci % :x', {dead}, 'read,write all'"
        database.execute(f"INSERT INTO tokens VALUES ({values})")  # noqa: S608 -- a test's own values


def select(form: Form) -> str:
    ends, made, used = (form.expression.format(f"tokens.{name}") for name in ("ends", "made", "used"))
    return f"""
        SELECT tokens.id AS token_id, users.id AS recipient_id, {made} AS created_at, {ends} AS expires_at,
            tokens.name AS token_name, users.name AS recipient_name, users.email AS email, {used} AS last_used_at,
            tokens.dead AS revoked, tokens.scopes AS scopes  -- not the :secret
        FROM tokens JOIN users ON users.id = tokens.user_id
        WHERE {form.between.format(ends)} AND tokens.name <> 'a :colon' /* token_ids: tokens.id */
    """  # noqa: S608 -- a test's own


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_same_tokens_come_as_the_same_frames(open_database: OpenDatabase, form: Form) -> None:
    database = open_database(form.database)
    fill(database, form)
    source = database.source(select(form), timezone=form.zone)

    found = pd.concat(source.snapshot(WINDOW)).sort_values("token_id", ignore_index=True)

    expected = {
        "token_id": [str(token_id) for token_id in EXPIRIES],
        "recipient_id": [str(token_id % 3 + 1) for token_id in EXPIRIES],
        "created_at": [CREATED] * len(EXPIRIES),
        "expires_at": expiries(form),
        "unreadable": [""] * len(EXPIRIES),
        "has_address": [token_id % 3 == 0 for token_id in EXPIRIES],
        "email_verified": [True] * len(EXPIRIES),
        "revoked": [token_id == 4 for token_id in EXPIRIES],
        "muted": [False] * len(EXPIRIES),
        "replaced_at": [NEVER] * len(EXPIRIES),
        "last_notified_at": [NEVER] * len(EXPIRIES),
    }
    frame = pd.DataFrame({name: pd.Series(values, dtype=TOKEN_COLUMNS[name]) for name, values in expected.items()})
    pd.testing.assert_frame_equal(found, frame)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_same_tokens_resolve_to_the_same_facts(open_database: OpenDatabase, form: Form) -> None:
    database = open_database(form.database)
    fill(database, form)
    source = database.source(select(form), timezone=form.zone)

    found = source.resolve(["1", "2", "10", "999"]).sort_values("expires_at", ignore_index=True)

    assert {name: str(dtype) for name, dtype in found.dtypes.items() if name in TOKEN_COLUMNS} == TOKEN_COLUMNS
    first = expiries(form)[0]
    assert found["token_id"].tolist() == ["2", "1", "10"]
    assert found["expires_at"].dt.to_pydatetime().tolist() == [WINDOW.expires_after, first, OUTSIDE[10]]
    assert found["email"].tolist() == ["  ", None, None]
    assert found["last_used_at"].tolist() == [None, CREATED + SECOND, None]
    assert found["scopes"].tolist() == [("read", "write", "all")] * 3
    assert found["token_name"].tolist() == ["ci % :x"] * 3
    assert source.resolve([]).empty
    assert source.resolve(["x"]).empty if form.database != "postgres" else True


def expiries(form: Form) -> list[datetime]:
    return [expiry.replace(microsecond=0) if form.whole_seconds else expiry for expiry in EXPIRIES.values()]


@pytest.mark.parametrize(
    "name", ["postgres timestamp, Berlin", "mariadb datetime, Berlin", "sqlite text with a blank, Berlin"]
)
def test_window_that_begins_or_ends_in_a_folded_hour_is_exact(open_database: OpenDatabase, name: str) -> None:
    """In Berlin 02:00 to 03:00 comes twice that night and means the first; clocks are compared out of order."""
    form = FORMS[name]
    database = open_database(form.database)
    fill(database, form)
    edge = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    source = database.source(select(form), timezone=form.zone)
    for moved, begins, ends in ((-1, True, False), (0, True, False), (1, False, True), (60, False, True)):
        moment = edge + timedelta(minutes=moved)
        after = Window(expires_after=moment, expires_before=moment + timedelta(days=2))
        before = Window(expires_after=moment - timedelta(days=2), expires_before=moment)
        assert [frame["token_id"].tolist() for frame in source.snapshot(after) if len(frame)] == [["4"]] * begins
        assert [frame["token_id"].tolist() for frame in source.snapshot(before) if len(frame)] == [["4"]] * ends
