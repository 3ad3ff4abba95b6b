"""A tier's whole run: claim, resolve, render, serialise, send, record, on a Postgres with fsync on.

Compared with Postfix's own client on the same server, and with a plain script on the same registry.
"""

import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import psycopg
import yaml
from psycopg import sql

from bench import plain_script
from bench.accounting import cpu_seconds, postmaster_of
from bench.samples import Writer
from bench.servers import repository, seconds_of_smtp_source, sink
from token_pipelines.config import load
from token_pipelines.day import collect, plan_notices, read_tokens, send_share
from token_pipelines.delivery.counts import TierReport
from token_pipelines.demo.postgres import EmbeddedPostgres
from token_pipelines.demo.registry import create_schema
from token_pipelines.pipeline import Pipeline
from token_pipelines.planning import Share, SnapshotCounts

TARGETS = {
    "delivery.ratio_to_smtp_source": (">=", 0.20),
    "delivery.speedup_over_script": (">=", 7.0),
    "delivery.cpu_us_per_message": ("<=", 345.0),
    "delivery.postgres_cpu_us_per_message": ("<=", 120.0),
    "delivery.cpu_over_calibration": ("<=", 3.0),
}

ROUNDS = 3
CONNECTIONS = 16
RECIPIENTS = 20_000
SCRIPT_RECIPIENTS = 800
WRITTEN_TO_CALIBRATE = 1500
TEMPLATE = "bench_planned"


def figures() -> dict[str, float]:
    """Measure; every ratio is the median of ratios within one round."""
    writer = Writer()
    size = len(writer.write(1).data)
    theirs, script = [], []
    rounds: list[Round] = []
    with TemporaryDirectory() as name, EmbeddedPostgres(Path(name) / "postgres") as postgres, sink() as port:
        folder = Path(name)
        prepare(postgres, folder, port)
        for _ in range(ROUNDS):
            theirs.append(
                RECIPIENTS / seconds_of_smtp_source(port, sessions=CONNECTIONS, messages=RECIPIENTS, size=size)
            )
            rounds.append(measured(postgres, folder, port, writer))
            url = fresh_database(postgres)
            began = time.perf_counter()
            sent = plain_script.run(url, port, limit=SCRIPT_RECIPIENTS, html_size=size * 3 // 4)
            script.append(sent / (time.perf_counter() - began))
    ours = [one.per_second for one in rounds]
    return {
        "delivery.ratio_to_smtp_source": median(one / other for one, other in zip(ours, theirs, strict=True)),
        "delivery.speedup_over_script": median(one / other for one, other in zip(ours, script, strict=True)),
        "delivery.per_second": median(ours),
        "delivery.script_per_second": median(script),
        "delivery.smtp_source_per_second": median(theirs),
        # The least disturbed round: other work on the machine only ever adds to it.
        "delivery.cpu_us_per_message": min(one.cpu_us for one in rounds),
        "delivery.postgres_cpu_us_per_message": min(one.postgres_cpu_us for one in rounds),
        "delivery.cpu_over_calibration": median(one.cpu_us / one.write_us for one in rounds),
    }


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one round took: of this process and of all of Postgres' a message, and of writing one email alone."""

    per_second: float
    cpu_us: float
    postgres_cpu_us: float
    write_us: float


def measured(postgres: EmbeddedPostgres, folder: Path, port: int, writer: Writer) -> Round:
    """Send everything once, between two calibrations: a neighbour on the machine slows both."""
    parts = fresh_parts(postgres, folder, port)
    postmaster = postmaster_of(postgres.url())
    before = _us_of_writing(writer)
    theirs, ours, began = cpu_seconds(postmaster), time.process_time(), time.perf_counter()
    send(parts)
    seconds, ours, theirs = time.perf_counter() - began, time.process_time() - ours, cpu_seconds(postmaster) - theirs
    return Round(
        per_second=RECIPIENTS / seconds,
        cpu_us=ours / RECIPIENTS * 1e6,
        postgres_cpu_us=theirs / RECIPIENTS * 1e6,
        write_us=(before + _us_of_writing(writer)) / 2,
    )


def _us_of_writing(writer: Writer) -> float:
    began = time.process_time()
    for number in range(WRITTEN_TO_CALIBRATE):
        writer.write(number)
    return (time.process_time() - began) / WRITTEN_TO_CALIBRATE * 1e6


def prepare(postgres: EmbeddedPostgres, folder: Path, port: int) -> None:
    """Make the database that every round copies: a registry, and a ledger with the day's notices planned."""
    postgres.create_database(TEMPLATE)
    now = datetime.now(UTC)
    _fill(postgres.url(TEMPLATE), now)
    parts = _parts(folder, postgres.url(TEMPLATE), port)
    parts.ledger.migrate()
    day = parts.config.schedule.today(now)
    snapshot = collect(parts, read_tokens(parts, day=day, counts=SnapshotCounts()))
    [share] = plan_notices(parts, snapshot, day=day, tiers=["week"], run_id="bench").values()
    parts.ledger.close()
    if share.planned != RECIPIENTS:
        msg = f"{share.planned} notices were planned, and {RECIPIENTS} expected"
        raise RuntimeError(msg)


def fresh_database(postgres: EmbeddedPostgres) -> str:
    """Copy the prepared database; returns its URL."""
    name = f"bench_{uuid.uuid4().hex[:8]}"
    postgres.create_database(name, TEMPLATE)
    with psycopg.connect(postgres.url(name), autocommit=True) as connection:
        connection.execute("CHECKPOINT")
    return postgres.url(name)


def fresh_parts(postgres: EmbeddedPostgres, folder: Path, port: int) -> Pipeline:
    """A pipeline on a new copy of the prepared database."""
    return _parts(folder, fresh_database(postgres), port)


def send(parts: Pipeline) -> None:
    """Run one tier, and fail unless every notice was sent."""
    report, share = TierReport(), Share(tier="week", planned=RECIPIENTS, unreachable={})
    send_share(parts, share, run_id=uuid.uuid4().hex, report=report)
    parts.ledger.close()
    if report.sent != RECIPIENTS:
        msg = f"{report} instead of {RECIPIENTS} sent"
        raise RuntimeError(msg)


def _parts(folder: Path, url: str, port: int) -> Pipeline:
    config = {
        "source": {"url": url, "query": "crates_io"},
        "ledger": {"url": url},
        "schedule": {"start_date": "2026-01-01"},
        "tiers": [{"name": "week", "before": "7d"}],
        "email": {
            "from": "Example Registry <noreply@example.org>",
            "service": "Example Registry",
            "templates": str(repository() / "templates"),
            "links": {
                "renew": "https://example.org/settings/tokens/new?from={token_id}",
                "manage": "https://example.org/settings/tokens",
                "unsubscribe": "https://example.org/settings/tokens/reminders?user={recipient_id}",
            },
        },
        "smtp": {"host": "127.0.0.1", "port": port, "security": "none", "connections": CONNECTIONS, "rate": None},
        "delivery": {"max_notices": 10 * RECIPIENTS},
    }
    path = folder / "token_pipelines.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return Pipeline(load(path))


def _fill(url: str, now: datetime) -> None:
    """A registry in which each user has one token, which expires within the week."""
    with psycopg.connect(url) as connection:
        create_schema(connection)
        people = ((number, 1000 + number, f"person{number}", f"Person Number {number}") for number in range(RECIPIENTS))
        _copy(connection, "users", ("id", "gh_id", "gh_login", "name"), people)
        addresses = ((number, f"person{number}@example.org", True) for number in range(RECIPIENTS))
        _copy(connection, "emails", ("user_id", "email", "verified"), addresses)
        tokens = (
            (
                number,
                f"github-actions release {number}",
                now - timedelta(days=83),
                now - timedelta(days=2, minutes=number),
                ["publish-new", "publish-update"],
                now + timedelta(days=5, minutes=number % 1440),
            )
            for number in range(RECIPIENTS)
        )
        columns = ("user_id", "name", "created_at", "last_used_at", "endpoint_scopes", "expired_at")
        _copy(connection, "api_tokens", columns, tokens)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def _copy(connection: psycopg.Connection, table: str, columns: tuple[str, ...], rows: object) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:  # type: ignore[attr-defined]
            copy.write_row(row)
