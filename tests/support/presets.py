"""The databases that the presets are for: their real tables, filled by hand, and read as the pipeline reads them."""

import uuid
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

import pandas as pd
import psycopg
from psycopg import sql

from support.pipeline import DAY, NOW
from token_pipelines.config import Source as SourceConfig
from token_pipelines.demo.postgres import EmbeddedPostgres
from token_pipelines.demo.registry import SCHEMA as CRATES_IO
from token_pipelines.policy import Window
from token_pipelines.source.source import Source
from token_pipelines.token_facts import TOKEN_COLUMNS

SCHEMAS: Final = Path(__file__).parents[1] / "conformance" / "schemas"
PRESETS: Final = ("crates_io", "django", "doorkeeper", "gitlab")
WINDOW: Final = Window(expires_after=NOW - 3 * DAY, expires_before=NOW + 30 * DAY)


class Database:
    """A preset's database: tables to fill, and the preset to read them with."""

    def __init__(self, url: str, preset: str) -> None:
        """Make the tables."""
        self.url = url
        self.preset = preset
        schema = CRATES_IO if preset == "crates_io" else (SCHEMAS / f"{preset}.sql").read_text(encoding="utf-8")
        self.execute(schema)

    @classmethod
    def on(cls, server: EmbeddedPostgres, preset: str) -> Self:
        """A database of its own for a whole module: the tests that share it empty it."""
        name = f"preset_{uuid.uuid4().hex[:12]}"
        server.create_database(name)
        return cls(server.url(name), preset)

    def empty(self) -> Self:
        """Remove all rows, and begin ids anew."""
        tables = self.execute(
            "SELECT string_agg(quote_ident(relname), ', ') FROM pg_stat_user_tables WHERE schemaname = 'public'"
        )[0][0]
        self.execute(f"TRUNCATE {tables} RESTART IDENTITY")
        return self

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run SQL and give its rows."""
        with psycopg.connect(self.url) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def add(self, table: str, **row: object) -> Any:  # noqa: ANN401 -- whatever the first column holds
        """Add a row, and give its first column: an id, in all tables but one."""
        insert = sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING *").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, row)),
            sql.SQL(", ").join(map(sql.Literal, row.values())),
        )
        with psycopg.connect(self.url) as connection:
            added = connection.execute(insert).fetchone()
        assert added is not None
        return added[0]

    def source(self, **keys: object) -> Source:
        """The preset, with a config that has nothing but the URL; ``keys`` change it."""
        config = SourceConfig.model_validate({"url": self.url, "query": self.preset} | keys)
        return Source(config)

    def snapshot(self, window: Window = WINDOW) -> pd.DataFrame:
        """Every token in the window, by id."""
        frames = list(self.source().snapshot(window))
        if not frames:
            return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in TOKEN_COLUMNS.items()})
        return pd.concat(frames).set_index("token_id", drop=False)

    def snapshot_ids(self, window: Window = WINDOW) -> set[str]:
        """The ids of the tokens in the window."""
        return set(self.snapshot(window)["token_id"])

    def resolve(self, token_id: object) -> dict[str, Any]:
        """One token as the email tells of it."""
        [row] = self.source().resolve([str(token_id)]).to_dict("records")
        return {str(name): value for name, value in row.items()}

    def replaced_at(self, token_id: object) -> datetime | None:
        """When a token was replaced, as read just before sending; None if it was not."""
        found = self.resolve(token_id)["replaced_at"]
        return None if found is pd.NaT else found.to_pydatetime()
