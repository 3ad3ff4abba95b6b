"""SQLite's file beside the config, whatever the folder is called: read, and written to by on_sent."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from token_pipelines.config import Origin
from token_pipelines.config import Source as SourceConfig
from token_pipelines.policy import Window
from token_pipelines.source.on_sent import OnSentStatement
from token_pipelines.source.source import Source

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
WINDOW = Window(expires_after=NOW - timedelta(days=3), expires_before=NOW + timedelta(days=30))
QUERY = """
SELECT id AS token_id, 7 AS recipient_id, '2026-01-01T00:00:00Z' AS created_at, '2026-11-22T00:00:00Z' AS expires_at,
    'n' AS token_name, 'Ada' AS recipient_name, 'ada@example.org' AS email
FROM tokens WHERE '2026-11-22' >= :expires_after AND '2026-11-22' < :expires_before
"""
FOLDERS = [
    "a?b",
    "?mode=rw",
    "a#b",
    "a%b",
    "a%20b",
    "a%3Fb",
    "a b",
    "a+b",
    "ä",
    "a&b=c;d",
    "a@b",
    "a:b",
    "a'b\"c",
    "a\\b",
]
URLS = ["sqlite:///t.db", "sqlite:///./t.db?timeout=3", "sqlite+pysqlite:///t.db", "sqlite:///file:t.db?uri=true"]


@pytest.mark.parametrize("name", FOLDERS)
def test_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "tokens.sql").write_text(QUERY, encoding="utf-8")
    with closing(sqlite3.connect(folder / "t.db")) as connection:
        connection.executescript("CREATE TABLE tokens (id integer, at text); INSERT INTO tokens VALUES (1, NULL)")
        for url in URLS:
            written = {
                "url": url,
                "query": "tokens.sql",
                "on_sent": "UPDATE tokens SET at = :sent_at WHERE id IN :token_ids",
            }
            config = SourceConfig.model_validate(written, context=Origin(folder / "token_pipelines.yaml"))
            assert [frame["token_id"].tolist() for frame in Source(config).snapshot(WINDOW)] == [["1"]]
            OnSentStatement(config).run([1], NOW)
            assert connection.execute("SELECT at FROM tokens").fetchone() != (None,)
            connection.execute("UPDATE tokens SET at = NULL")
            connection.commit()
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


def test_name_of_the_file_may_be_escaped(tmp_path: Path) -> None:
    (tmp_path / "tokens.sql").write_text(QUERY, encoding="utf-8")
    with closing(sqlite3.connect(tmp_path / "my ?.db")) as connection:
        connection.execute("CREATE TABLE tokens (id integer)")
    config = {"url": "sqlite:///my%20%3F.db", "query": "tokens.sql"}
    origin = Origin(tmp_path / "token_pipelines.yaml")
    assert list(Source(SourceConfig.model_validate(config, context=origin)).snapshot(WINDOW)) == []
