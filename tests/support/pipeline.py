"""A whole pipeline for a test: a registry to fill, a config in a folder, and a day's run without Dagster.

registry = Registry(registry_url)
ada = registry.user("ada", email="ada@example.org")
registry.token(ada, expires_at=NOW + 2 * DAY)
with Smtpd() as relay:
    day = PipelineRunner(tmp_path, registry_url, relay.port).run(NOW)
assert day.sent == 1
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Final, Self

import psycopg
import yaml

from token_pipelines import shipped
from token_pipelines.config import Config, Email, load
from token_pipelines.day import DayResult, run_day
from token_pipelines.ledger.ledger import Ledger
from token_pipelines.mail.rendering import Renderer
from token_pipelines.pipeline import Pipeline
from token_pipelines.planning import SnapshotCounts

NOW: Final = datetime(2026, 11, 20, 9, tzinfo=UTC)
DAY: Final = timedelta(days=1)
YEAR: Final = timedelta(days=365)
_NUMBERS: Final = count(1)


class Registry:
    """The operator's database, shaped as crates.io's."""

    def __init__(self, url: str) -> None:
        """The tables are there and empty."""
        self.url = url

    def execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one statement and give its rows."""
        with psycopg.connect(self.url) as connection:
            cursor = connection.execute(statement.encode(), values)
            assert "SELECT FROM" not in statement, "psycopg shows no rows without columns"
            return cursor.fetchall() if cursor.description else []

    def user(self, login: str, *, email: str | None = None, verified: bool = True, name: str | None = None) -> int:
        """Add a user, and their address where there is one."""
        [(user_id,)] = self.execute(
            "INSERT INTO users (gh_id, gh_login, name) VALUES (1, %s, %s) RETURNING id", login, name
        )
        if email is not None:
            values = (user_id, email, verified)
            self.execute("INSERT INTO emails (user_id, email, verified) VALUES (%s, %s, %s)", *values)
        return int(user_id)

    def token(
        self,
        user_id: int,
        *,
        expires_at: datetime | None,
        name: str | None = None,
        lifetime: timedelta = YEAR,
        **more: object,
    ) -> str:
        """Add a token and give its id as the ledger writes it. ``more`` are columns.

        Unless it is said, no two have the same name: the younger one would replace the older.
        """
        created_at = expires_at - lifetime if expires_at else NOW - YEAR
        row = {
            "user_id": user_id,
            "name": name or f"ci {next(_NUMBERS)}",
            "created_at": created_at,
            "expired_at": expires_at,
            **more,
        }
        columns, places = ", ".join(row), ", ".join(["%s"] * len(row))
        insert = f"INSERT INTO api_tokens ({columns}) VALUES ({places}) RETURNING id"  # noqa: S608 -- a test's own names
        [(token_id,)] = self.execute(insert, *row.values())
        return str(token_id)

    def change(self, token_id: str, **columns: object) -> None:
        """Change a token."""
        changes = ", ".join(f"{name} = %s" for name in columns)
        update = f"UPDATE api_tokens SET {changes} WHERE id = %s"  # noqa: S608 -- a test's own names
        self.execute(update, *columns.values(), int(token_id))


@dataclass(kw_only=True)
class Day(DayResult):
    """What one run did, summed over its tiers."""

    @property
    def examination(self) -> SnapshotCounts:
        """What the snapshot showed."""
        return self.counts

    def total(self, outcome: str) -> int:
        """An outcome's notices over all tiers."""
        return sum(getattr(report, outcome) for report in self.tiers.values())

    @property
    def sent(self) -> int:
        """Notices sent."""
        return self.total("sent")

    @property
    def numbers(self) -> dict[str, int]:
        """Every outcome that happened at all, summed over the tiers."""
        outcomes = ("sent", "deferred", "failed", "unknown", "waiting")
        return {outcome: self.total(outcome) for outcome in outcomes if self.total(outcome)}

    @property
    def skipped(self) -> dict[str, int]:
        """Notices skipped by reason, over all tiers."""
        return dict(sum((report.skipped for report in self.tiers.values()), Counter[str]()))


class PipelineRunner:
    """A config in a folder of its own, and its parts. Each run opens its connections and closes them all."""

    name: str | None = None
    _runs = 0
    _now = NOW
    _parts: Pipeline | None = None

    def __init__(
        self, folder: Path, url: str, port: int, *, ledger_url: str | None = None, **sections: dict[str, Any]
    ) -> None:
        """``sections`` change keys of the config's sections; ``port`` is the relay's on loopback."""
        self.path = write_config(folder, url, port, ledger_url=ledger_url, **sections)

    @classmethod
    def named(cls, path: Path, name: str) -> Self:
        """One of the several pipelines of a config that is written already."""
        one = cls.__new__(cls)
        one.path, one.name = path, name
        return one

    @property
    def config(self) -> Config:
        """The config, read anew."""
        return load(self.path, self.name)

    def parts(self, now: datetime) -> Pipeline:
        """The parts, made once, with a clock that stands still at ``now``. Close their ledger after use."""
        self._now = now
        if self._parts is None:
            self._parts = Pipeline(self.config, lambda: self._now)
            if self._parts.config.email.templates == Path(shipped.path("templates")):
                self._parts.renderer = _shipped_renderer(self._parts.email)
        return self._parts

    def pass_time(self, span: timedelta) -> None:
        """Let the clock go on during a run."""
        self._now += span

    def run(self, now: datetime, *, day: date | None = None, tiers: Sequence[str] = (), approve: bool = False) -> Day:
        """One day, in a run of its own."""
        self._runs += 1
        parts = self.parts(now)
        with closing(parts.ledger):
            parts.ledger.migrate()
            result = run_day(parts, run_id=f"run-{self._runs}", day=day, tiers=tiers, approve=approve)
        return Day(**vars(result))

    def history(self, **by: Any) -> list[dict[str, Any]]:  # noqa: ANN401 -- what Ledger.history takes
        """What the ledger says."""
        with closing(Ledger.of(self.config)) as ledger:
            ledger.migrate()
            return list(ledger.history.entries(**by))

    def told_of(self, token_id: str) -> list[tuple[str, str]]:
        """The tier and the state of every notice about a token."""
        return sorted((entry["tier"], entry["state"]) for entry in self.history(token_id=token_id))

    def states(self) -> dict[str, str]:
        """The state of each recipient's newest notice."""
        return {entry["recipient_id"]: entry["state"] for entry in self.history()}


MakePipeline = Callable[..., PipelineRunner]
"""The fixture ``make_pipeline``: ``make_pipeline(relay, delivery={"max_attempts": 1})``."""


@cache
def _shipped_renderer(email: Email) -> Renderer:
    """The shipped templates, which a test process compiles once: that takes half a second of a core."""
    return Renderer(email.templates, email)


def write_config(
    folder: Path, url: str, port: int, *, ledger_url: str | None = None, **sections: dict[str, Any]
) -> Path:
    """The shipped config with a test's own servers, without pauses, with ``sections`` laid over it."""
    config: dict[str, Any] = yaml.safe_load(shipped.path("token_pipelines.yaml").read_text(encoding="utf-8"))
    ours: dict[str, dict[str, Any]] = {
        "source": {"url": url},
        "ledger": {"url": ledger_url or url},
        "email": {"templates": str(shipped.path("templates"))},
        "smtp": {"host": "127.0.0.1", "port": port, "security": "none", "rate": None, "reconnect_pauses": []},
        "delivery": {"retry_pauses": []},
    }
    for layer in (ours, sections):
        for section, values in layer.items():
            if isinstance(values, dict):
                config[section] = config.get(section, {}) | values
            else:
                config[section] = values
    path = folder / "token_pipelines.yaml"
    path.write_text(yaml.safe_dump(config, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return path
