"""The cost of a larger table: the same 100,000 due tokens, read from a table of 1 million and from one of 10 million.

``BENCH_LARGEST=50000000`` adds a table of that size (13 GB of disk, some minutes to make).
"""

import os
from pathlib import Path
from statistics import median
from typing import Final

import psycopg

from bench.database import scaled, server, write_config
from bench.reading import read_day
from bench.registry import Registry, make
from token_pipelines.demo.postgres import EmbeddedPostgres

TARGETS: Final = {"growth.ratio_10m_to_1m": ("<=", 4.0)}

ROUNDS: Final = 5
DUE: Final = scaled(100_000)
MILLION: Final = 1_000_000
SIZES: Final = [MILLION, 10 * MILLION, *map(int, filter(None, [os.environ.get("BENCH_LARGEST")]))]
TIERS: Final = [{"name": "day", "before": "1d"}]


def figures() -> dict[str, float]:
    """Measure; the ratio is the median of rounds, each of which reads every table."""
    indexed: dict[int, list[float]] = {size: [] for size in SIZES}
    bare: dict[int, list[float]] = {size: [] for size in SIZES}
    with server() as (postgres, folder):
        postgres.create_database("bench_ledger")
        urls = {size: make(postgres, Registry(tokens=scaled(size), soon=DUE, due=DUE)) for size in SIZES}
        _measure(postgres, folder, urls, indexed)
        for url in urls.values():
            with psycopg.connect(url) as connection:
                connection.execute("DROP INDEX api_tokens_expired_at, api_tokens_user_id")
        _measure(postgres, folder, urls, bare)
    ratios = [ten / one for one, ten in zip(indexed[MILLION], indexed[10 * MILLION], strict=True)]
    found = {"growth.ratio_10m_to_1m": median(ratios)}
    for size in SIZES:
        name = f"growth.seconds_at_{size // MILLION}m"
        found |= {name: median(indexed[size]), f"{name}_without_index": median(bare[size])}
    return found


def _measure(postgres: EmbeddedPostgres, folder: Path, urls: dict[int, str], taken: dict[int, list[float]]) -> None:
    for number in range(ROUNDS + 1):
        for size, url in urls.items():
            seconds = _read(postgres, folder, url)
            if number:  # the first round brings the tables into the page cache
                taken[size].append(seconds)


def _read(postgres: EmbeddedPostgres, folder: Path, url: str) -> float:
    config = write_config(folder, source=url, ledger=postgres.url("bench_ledger"), tiers=TIERS)
    seconds, examination = read_day(config, folder / "snapshot.parquet")
    if examination.examined != DUE:
        msg = f"{examination.examined} tokens were read, and {DUE} expected"
        raise RuntimeError(msg)
    return seconds
