"""The Postgres that is measured: fsync on, in a temporary folder that is removed afterwards.

It has Postgres' default settings, except those that make filling it quick and that keep autovacuum from running in the
middle of a round.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import psycopg
import yaml
from psycopg import sql

from bench.servers import repository
from token_pipelines.config import load
from token_pipelines.demo.postgres import EmbeddedPostgres
from token_pipelines.pipeline import Pipeline

NOW: Final = datetime(2026, 11, 23, 9, tzinfo=UTC)
"""The present time of every measured run. The run looks ahead until 11:00 of the next day."""

SCALE: Final = float(os.environ.get("BENCH_SCALE", "1"))
"""Multiplies all sizes. ``BENCH_SCALE=0.02 make bench ARGS=snapshot`` is a quick look; its figures are not stored."""

SETTINGS: Final = {
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "1h",
    "maintenance_work_mem": "256MB",
    "autovacuum": "off",
    "track_activity_query_size": "32kB",
}


def scaled(count: int) -> int:
    """A number of rows at the chosen scale."""
    return max(1, int(count * SCALE))


@contextmanager
def server() -> Iterator[tuple[EmbeddedPostgres, Path]]:
    """A server, and a folder for the config and the output. Both are removed when the block ends."""
    with TemporaryDirectory(prefix="token-pipelines-bench-") as name:
        postgres = EmbeddedPostgres(Path(name) / "postgres", settings=SETTINGS)
        try:
            with postgres:
                yield postgres, Path(name)
        finally:
            shutil.rmtree(postgres.home, ignore_errors=True)


def copy_database(postgres: EmbeddedPostgres, name: str, template: str) -> str:
    """Copy a database and write it to disk; returns its URL. It copies files: a large one takes a minute by the log."""
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        connection.execute("CHECKPOINT")
    return postgres.url(name)


def drop_database(postgres: EmbeddedPostgres, name: str) -> None:
    """Drop a database, which frees its disk."""
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def settle(url: str) -> None:
    """Vacuum, analyse and flush a database, as it is after some hours of ordinary use."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (FREEZE, ANALYZE)")
        connection.execute("CHECKPOINT")


def write_config(folder: Path, *, source: str, ledger: str, tiers: list[dict[str, str]]) -> Path:
    """Write a pipeline's config into a file."""
    config: dict[str, Any] = {
        "source": {"url": source, "query": "crates_io"},
        "ledger": {"url": ledger},
        "schedule": {"start_date": "2026-01-01"},
        "tiers": tiers,
        "email": {
            "from": "Example Registry <noreply@example.org>",
            "service": "Example Registry",
            "templates": str(repository() / "templates"),
            "links": {
                "renew": "https://example.org/settings/tokens/new?from={token_id}",
                "manage": "https://example.org/settings/tokens",
            },
        },
        "smtp": {"host": "127.0.0.1", "port": 25, "security": "none"},
        "delivery": {"max_notices": 100_000_000},
    }
    path = folder / "token_pipelines.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def parts_of(config: Path) -> Pipeline:
    """The pipeline of a config, at `NOW`. Close its ledger after use."""
    return Pipeline(load(config), lambda: NOW)
