"""The examples in docs/sources/your-own.md are run as they stand there."""

import re
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import psycopg
import pytest
import yaml
from sqlalchemy import NullPool, create_engine

from token_pipelines.config import Origin
from token_pipelines.config import Source as SourceConfig
from token_pipelines.policy import Window
from token_pipelines.source.source import Source

PAGE = Path(__file__).parents[2] / "docs" / "sources" / "your-own.md"
BLOCK = re.compile(r"^```(?:sql|yaml) (\w+)=(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLES = {(kind, database): text for kind, database, text in BLOCK.findall(PAGE.read_text(encoding="utf-8"))}

DIES = datetime(2026, 11, 28, tzinfo=ZoneInfo("Europe/Berlin")).astimezone(UTC)
WINDOW = Window(expires_after=datetime(2026, 11, 20, tzinfo=UTC), expires_before=datetime(2026, 12, 1, tzinfo=UTC))


def read(url: str, database: str, folder: Path, window: Window = WINDOW) -> tuple[pd.DataFrame, Source]:
    """Read with the example's query and config; only the URL is ours."""
    config = yaml.safe_load(EXAMPLES["config", database])["source"]
    (folder / config["query"]).write_text(EXAMPLES["query", database], encoding="utf-8")
    origin = Origin(folder / "token_pipelines.yaml")
    source = Source(SourceConfig.model_validate(config | {"url": url}, context=origin))
    frames = list(source.snapshot(window))
    return pd.concat(frames) if frames else pd.DataFrame({"token_id": []}), source


def test_page_has_a_whole_example_for_each_database() -> None:
    databases = ("postgres", "mysql", "sqlite")
    assert set(EXAMPLES) == {(kind, name) for name in databases for kind in ("tables", "query", "config")}


def test_postgres_key_of_a_team_tells_every_member(database_url: str, tmp_path: Path) -> None:
    key, successor = "0190a1b2-0000-7000-8000-000000000001", "0190a1b2-0000-7000-8000-000000000002"
    with psycopg.connect(database_url) as connection:
        connection.execute(EXAMPLES["tables", "postgres"].encode())
        connection.execute(
            "INSERT INTO people VALUES (1, 'Ada', 'de'), (2, 'Eve', NULL);"
            "INSERT INTO addresses VALUES (1, 'ada@example.org', true);"
            "INSERT INTO members VALUES (7, 1), (7, 2)"
        )
        connection.cursor().executemany(
            "INSERT INTO deploy_keys VALUES (%s, 7, 'deploy', 'secret', %s, %s, NULL, %s)",
            [(successor, "2026-11-01Z", None, None), (key, "2026-01-01Z", "2026-11-27", successor)],
        )

    found, source = read(database_url, "postgres", tmp_path)

    assert sorted(zip(found["token_id"], found["recipient_id"], strict=True)) == [(key, "1"), (key, "2")]
    assert set(found["expires_at"]) == {pd.Timestamp(DIES)}
    assert set(found["replaced_at"]) == {pd.Timestamp("2026-11-01T00:00Z")}
    assert sorted(zip(found["recipient_id"], found["has_address"], strict=True)) == [("1", True), ("2", False)]
    assert sorted(source.resolve([key])["email"].dropna()) == ["ada@example.org"]


@pytest.mark.parametrize(("offset", "read_at_all"), [(0, True), (1, False)])
def test_postgres_key_dies_at_the_end_of_its_day(
    database_url: str,
    tmp_path: Path,
    offset: int,
    read_at_all: bool,  # noqa: FBT001 -- a table
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(EXAMPLES["tables", "postgres"].encode())
        connection.execute(
            b"INSERT INTO people VALUES (1, 'Ada', 'de'); INSERT INTO members VALUES (7, 1);"
            b"INSERT INTO deploy_keys (id, team_id, secret_hash, made_at, valid_until)"
            b" VALUES (gen_random_uuid(), 7, '', '2026-01-01Z', '2026-11-27')"
        )
    window = Window(expires_after=DIES + pd.Timedelta(seconds=offset), expires_before=DIES + pd.Timedelta(days=1))
    assert len(read(database_url, "postgres", tmp_path, window)[0]) == int(read_at_all)


def test_mysql_sanctum(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    server: Any = request.getfixturevalue("mariadb_server")
    with server.database() as url:
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql("SET time_zone = '+00:00'")
            for statement in EXAMPLES["tables", "mysql"].split(";\n")[:-1]:
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql(
                "INSERT INTO users VALUES (1, 'Ada', 'ada@example.org', '2025-01-01', 'secret'),"
                " (2, 'Eve', 'eve@example.org', NULL, 'secret')"
            )
            connection.exec_driver_sql(
                "INSERT INTO personal_access_tokens"
                " VALUES (%s, %s, %s, 'ci', %s, %s, NULL, '2026-11-27 23:00', '2026-01-01')",
                [
                    (number, f"App\\Models\\{kind}", owner, f"secret {number}", '["read", "write"]')
                    for number, kind, owner in ((5, "User", 1), (6, "User", 2), (7, "Team", 1))
                ],
            )

        found, source = read(url.render_as_string(hide_password=False), "mysql", tmp_path)

        assert sorted(zip(found["token_id"], found["email_verified"], strict=True)) == [("5", True), ("6", False)]
        assert set(found["expires_at"]) == {pd.Timestamp(DIES)}
        [resolved] = source.resolve(["5"]).to_dict("records")
    assert (resolved["email"], resolved["scopes"]) == ("ada@example.org", ("read", "write"))


def test_sqlite_seconds(tmp_path: Path) -> None:
    file = tmp_path / "tokens.db"
    dies = int(DIES.timestamp())
    with sqlite3.connect(file) as connection:
        connection.executescript(EXAMPLES["tables", "sqlite"])
        connection.execute("INSERT INTO people VALUES (1, 'Ada', 'ada@example.org')")
        rows = [(5, dies, 0), (6, dies, 1), (7, None, 0), (8, dies + 10 * 86400, 0)]
        connection.executemany("INSERT INTO tokens VALUES (?, 1, 'ci', '2026-01-01T00:00:00Z', ?, ?)", rows)
    connection.close()

    found, source = read(f"sqlite:///{file}", "sqlite", tmp_path)

    assert sorted(zip(found["token_id"], found["revoked"], strict=True)) == [("5", False), ("6", True)]
    assert set(found["expires_at"]) == {pd.Timestamp(DIES)}
    assert source.resolve(["5"])["email"].tolist() == ["ada@example.org"]
