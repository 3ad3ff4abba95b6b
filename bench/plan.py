"""Planning a day's due tokens into the ledger, compared with a bare INSERT … SELECT of the same rows.

Both write into the same two tables with the same indexes and constraints, in one transaction, in the same round: once
into an empty ledger, once into one with years of rows. The product also reads what was told, decides every token again,
groups the tokens into notices and makes their ids.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, LiteralString

import numpy as np
import pandas as pd
import psycopg

from bench.database import NOW, copy_database, drop_database, parts_of, scaled, server, settle, write_config
from token_pipelines.day import plan_notices
from token_pipelines.demo.postgres import EmbeddedPostgres
from token_pipelines.token_facts import INSTANT

TARGETS: Final = {"plan.rows_per_s_ratio_to_insert_select": (">=", 0.4)}

ROUNDS: Final = 3
RECIPIENTS: Final = scaled(200_000)
TOKENS: Final = scaled(300_000)
PAST: Final = scaled(2_000_000)
"""Tokens that are already told in the large ledger. A tenth of them expire in the span that the run reads."""

TIERS: Final = [{"name": "day", "before": "1d"}, {"name": "week", "before": "7d"}, {"name": "month", "before": "30d"}]

EMPTY, LARGE = "bench_empty_ledger", "bench_large_ledger"

FILL_PAST: Final[LiteralString] = """
SET session_replication_role = replica; -- the rows are consistent: skip the foreign keys
INSERT INTO token_pipelines.notices
    (notice_id, day, mode, tier, recipient_id, state, message_id, planned_by, planned_at, attempts, first_tried_at,
     sent_at)
SELECT md5(n::text)::uuid, at::date, 'live', 'month', n::text, 'sent', '<' || md5(n::text)::uuid || '@example.org>',
       'run-' || n % 1000, at, 1, at, at
FROM generate_series(1, {past}) AS n, LATERAL (SELECT '{now}'::timestamptz - n % 900 * interval '1 day') AS times (at);
INSERT INTO token_pipelines.notice_tokens
    (notice_id, token_id, recipient_id, expires_at, threshold, mode, tier)
SELECT md5(n::text)::uuid, 'told-' || n, n::text, expires_at, expires_at - interval '30 days', 'live', 'month'
FROM generate_series(1, {past}) AS n, LATERAL (
    SELECT '{now}'::timestamptz + CASE WHEN n % 10 = 0 THEN interval '29 days' - n % 1000 * interval '1 minute'
                                       ELSE -(n % 900 + 1) * interval '1 day' END) AS times (expires_at);
"""

KEEP_ROWS: Final[LiteralString] = """
CREATE TABLE planned_notices AS TABLE token_pipelines.notices ORDER BY notice_id;
CREATE TABLE planned_tokens AS TABLE token_pipelines.notice_tokens ORDER BY notice_id;
TRUNCATE token_pipelines.notices CASCADE;
"""


@dataclass
class Round:
    """Seconds of one round in one ledger."""

    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """The product's rows per second, divided by those of the bare INSERT."""
        return self.theirs / self.ours


def figures() -> dict[str, float]:
    """Measure. Each ratio is the median over the rounds; a round plans and inserts the same rows."""
    snapshot = due_tokens()
    rounds: dict[str, list[Round]] = {EMPTY: [], LARGE: []}
    with server() as (postgres, folder):
        make_ledgers(postgres, folder, snapshot)
        for number in range(ROUNDS):
            for template, measured in rounds.items():
                measured.append(measure(postgres, folder, template, snapshot, ours_first=number % 2 == 0))
    rows = RECIPIENTS + TOKENS
    return {
        "plan.rows_per_s_ratio_to_insert_select": min(median(one.ratio for one in found) for found in rounds.values()),
        "plan.ratio_in_empty_ledger": median(one.ratio for one in rounds[EMPTY]),
        "plan.ratio_in_large_ledger": median(one.ratio for one in rounds[LARGE]),
        "plan.rows_per_s": rows / median(one.ours for one in rounds[EMPTY]),
        "plan.rows_per_s_in_large_ledger": rows / median(one.ours for one in rounds[LARGE]),
        "plan.insert_select_rows_per_s": rows / median(one.theirs for one in rounds[EMPTY]),
    }


def due_tokens() -> pd.DataFrame:
    """A snapshot in which every token is due. Half of the recipients have two tokens."""
    number = np.arange(TOKENS)
    expires = pd.Series(pd.Timestamp(NOW) + pd.to_timedelta(60 + number % (29 * 1440), unit="min")).astype(INSTANT)
    none = pd.Series(pd.NaT, index=number, dtype=INSTANT)
    tokens = pd.DataFrame(
        {
            "token_id": pd.Series(70_000_000 + number).astype("str"),
            "recipient_id": pd.Series(10_000_000 + number % RECIPIENTS).astype("str"),
            "created_at": expires - pd.Timedelta(days=90),
            "expires_at": expires,
            "has_address": True,
            "email_verified": True,
            "revoked": False,
            "muted": False,
            "replaced_at": none,
            "last_notified_at": none,
            "reason": pd.Series(None, index=number, dtype="str"),
        }
    )
    return tokens.sample(frac=1, random_state=1, ignore_index=True)


def make_ledgers(postgres: EmbeddedPostgres, folder: Path, snapshot: pd.DataFrame) -> None:
    """Make the two ledgers that every round copies, and beside them the tables with the rows to insert."""
    postgres.create_database(EMPTY)
    _plan(folder, postgres.url(EMPTY), snapshot)
    with psycopg.connect(postgres.url(EMPTY)) as connection:
        connection.execute(KEEP_ROWS)
    settle(postgres.url(EMPTY))
    copy_database(postgres, LARGE, EMPTY)
    with psycopg.connect(postgres.url(LARGE)) as connection:
        fill = FILL_PAST.replace("{past}", str(PAST)).replace("{now}", NOW.isoformat())
        connection.execute(fill.encode())
    settle(postgres.url(LARGE))


def measure(
    postgres: EmbeddedPostgres, folder: Path, template: str, snapshot: pd.DataFrame, *, ours_first: bool
) -> Round:
    """One round, each side in a copy of the ledger. The side that begins alternates between rounds."""
    seconds = {}
    for who in ("ours", "theirs") if ours_first else ("theirs", "ours"):
        url = copy_database(postgres, f"bench_{who}", template)
        seconds[who] = _plan(folder, url, snapshot) if who == "ours" else _insert(url)
        drop_database(postgres, f"bench_{who}")
    return Round(**seconds)


def _plan(folder: Path, url: str, snapshot: pd.DataFrame) -> float:
    parts = parts_of(write_config(folder, source=url, ledger=url, tiers=TIERS))
    parts.ledger.migrate()
    began = time.perf_counter()
    shares = plan_notices(parts, snapshot, day=NOW.date(), tiers=[tier["name"] for tier in TIERS], run_id="bench")
    seconds = time.perf_counter() - began
    parts.ledger.close()
    planned = sum(share.planned for share in shares.values())
    if planned != RECIPIENTS:
        msg = f"{planned} notices were planned, and {RECIPIENTS} expected"
        raise RuntimeError(msg)
    return seconds


def _insert(url: str) -> float:
    with psycopg.connect(url) as connection:
        began = time.perf_counter()
        connection.execute("INSERT INTO token_pipelines.notices SELECT * FROM planned_notices")
        connection.execute("INSERT INTO token_pipelines.notice_tokens SELECT * FROM planned_tokens")
        connection.commit()
        return time.perf_counter() - began
