"""What holds for every preset: no secret is read, the documented rights are enough, and indexes are of use."""

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url
from support.presets import PRESETS, WINDOW, Database

from token_pipelines.demo.postgres import EmbeddedPostgres
from token_pipelines.source.query import PRESETS as FOLDER

PAGES = Path(__file__).parents[2] / "docs" / "sources"
SQL_BLOCK = re.compile(r"^```sql\n(.*?)^```", re.MULTILINE | re.DOTALL)

SECRETS = {
    "crates_io": {"api_tokens": ["token"], "emails": ["token"]},
    "django": {"knox_authtoken": ["digest", "token_key"], "auth_user": ["password"]},
    "doorkeeper": {
        "oauth_access_tokens": ["token", "refresh_token"],
        "oauth_applications": ["secret"],
        "users": ["encrypted_password", "reset_password_token", "confirmation_token", "otp_secret"],
    },
    "gitlab": {
        "personal_access_tokens": ["token_digest"],
        "users": [
            "encrypted_password",
            "reset_password_token",
            "confirmation_token",
            "incoming_email_token",
            "feed_token",
            "static_object_token",
        ],
    },
}

# The index that a batch's ids reach, and those that the daily read's window does, where a page speaks of one.
KEYS = {
    "crates_io": "api_tokens_pkey",
    "django": "knox_authtoken_pipeline_id",
    "doorkeeper": "oauth_access_tokens_pkey",
    "gitlab": "personal_access_tokens_pkey",
}
EXPIRY = {
    "crates_io": ("api_tokens_expired_at", None),
    "django": ("knox_authtoken_expiry", None),
    "doorkeeper": ("oauth_access_tokens_expiry", None),
    "gitlab": (
        "expiry",
        "CREATE INDEX expiry ON personal_access_tokens (expires_at)",
    ),  # on a DATE, should there be one
}

# Two thousand users with a token each, of which one, the first, expires in the window.
FILLED = {
    "crates_io": """
        INSERT INTO users (gh_id, gh_login) SELECT n, 'user' || n FROM numbers;
        INSERT INTO emails (user_id, email, verified) SELECT n, n || '@example.org', true FROM numbers;
        INSERT INTO api_tokens (user_id, name, created_at, expired_at) SELECT n, 'ci', born, dies FROM numbers""",
    "django": """
        INSERT INTO auth_user (password, is_superuser, username, first_name, last_name, email, is_staff, is_active,
                               date_joined)
            SELECT 'secret', false, n, 'Ada', '', n || '@example.org', false, true, born FROM numbers;
        INSERT INTO knox_authtoken SELECT 'secret' || n, born, n, dies, 'secret' FROM numbers""",
    "doorkeeper": """
        INSERT INTO users (email, created_at, updated_at, confirmed_at, account_id)
            SELECT n || '@example.org', born, born, born, n FROM numbers;
        INSERT INTO oauth_access_tokens (token, created_at, expires_in, resource_owner_id)
            SELECT 'secret' || n, born, extract(epoch FROM dies - born), n FROM numbers""",
    "gitlab": """
        INSERT INTO users (email, name, state, confirmed_at)
            SELECT n || '@example.org', 'Ada', 'active', born FROM numbers;
        INSERT INTO personal_access_tokens (user_id, name, expires_at, created_at, updated_at)
            SELECT n, 'ci', dies, born, born FROM numbers""",
}


@pytest.fixture(scope="module", params=PRESETS)
def database(request: pytest.FixtureRequest, postgres_server: EmbeddedPostgres) -> Database:
    """Give the preset's database, filled, and with every index that its page speaks of."""
    database = Database.on(postgres_server, request.param)
    days = "CASE n WHEN 1 THEN 1 ELSE 40 + n END * interval '1 day'"
    numbers = f"SELECT n, timestamptz '2026-01-01Z' AS born, timestamptz '2026-11-20Z' + {days} AS dies"
    temporary = f"CREATE TEMP TABLE numbers AS {numbers} FROM generate_series(1, 2000) AS n;"
    database.execute(f"{temporary}{FILLED[database.preset]}")
    for block in page_blocks(database.preset):
        if "CREATE INDEX" in block:
            database.execute(block.replace("INDEX CONCURRENTLY", "INDEX IF NOT EXISTS"))
    if more := EXPIRY[database.preset][1]:
        database.execute(more)
    database.execute("ANALYZE")
    return database


@pytest.fixture
def reader(database: Database) -> Iterator[str]:
    """Give the URL of a role that has the rights on the preset's page and no other."""
    role = f"reader_{uuid.uuid4().hex[:12]}"
    database.execute(f"CREATE ROLE {role} LOGIN")
    for block in page_blocks(database.preset):
        if "GRANT" in block:
            database.execute(block.replace("token_pipelines", role))
    yield make_url(database.url).set(username=role).render_as_string(hide_password=False)
    database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def page_blocks(preset: str) -> list[str]:
    return SQL_BLOCK.findall((PAGES / f"{preset}.md").read_text(encoding="utf-8"))


def test_every_preset_is_tested_and_has_a_page() -> None:
    presets = sorted(path.stem for path in FOLDER.glob("*.sql"))
    assert presets == list(PRESETS) == sorted(SECRETS)
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[`(\w+)`\]\(\1\.md\)", index, re.MULTILINE) == [
        "crates_io",
        "gitlab",
        "doorkeeper",
        "django",
    ]


def test_role_with_the_rights_on_the_page_reads_all_and_no_secret(database: Database, reader: str) -> None:
    """Postgres itself says so: a role without a right to a column cannot read it by any way round."""
    source = database.source(url=reader)
    [tokens] = source.snapshot(WINDOW)
    [token_id] = tokens["token_id"]
    assert source.resolve([token_id])["email"].tolist() == ["1@example.org"]
    for table, columns in SECRETS[database.preset].items():
        for column in columns:
            with psycopg.connect(reader) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(sql.SQL("SELECT {} FROM {}").format(sql.Identifier(column), sql.Identifier(table)))


def test_every_secret_of_the_schema_is_on_the_list(database: Database) -> None:
    """A column that is added to a schema here must be thought about."""
    found = database.execute(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        " AND data_type IN ('text', 'character varying', 'bytea') AND column_name ~ '(token|digest|password|secret)'"
    )
    listed = {(table, column) for table, columns in SECRETS[database.preset].items() for column in columns}
    assert set(found) == listed


def explained(database: Database, columns: str, condition: str = "", *, after: str, before: str) -> list[str]:
    """Give the names of the indexes by which Postgres reads the wrapped query when it may."""
    query = (FOLDER / f"{database.preset}.sql").read_text(encoding="utf-8")
    for bind, value in (("expires_after", after), ("expires_before", before)):
        query = query.replace(f":{bind}", f"'{value}'::timestamptz")
    with psycopg.connect(database.url) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET enable_seqscan = off")
        wrapped = f"SELECT {columns} FROM (\n{query}\n) AS source {condition}"  # noqa: S608 -- the preset's
        row = connection.execute(f"EXPLAIN (FORMAT JSON) {wrapped}".encode()).fetchone()
    assert row is not None
    return list(indexes(row[0][0]["Plan"]))


def indexes(node: dict[str, Any]) -> Iterator[str]:
    if "Index Cond" in node:
        yield node["Index Name"]
    for child in node.get("Plans", []):
        yield from indexes(child)


def test_filter_on_the_token_id_reaches_the_key(database: Database) -> None:
    [token_id] = database.snapshot_ids()
    condition = f"WHERE token_id IN ('{token_id}', '12')"
    found = explained(database, "*", condition, after="1970-01-01", before="9000-01-01")
    assert KEYS[database.preset] in found


def test_window_reaches_an_index_on_the_expiry(database: Database) -> None:
    found = explained(database, "token_id, expires_at", after="2026-11-20", before="2026-11-21")
    assert EXPIRY[database.preset][0] in found
