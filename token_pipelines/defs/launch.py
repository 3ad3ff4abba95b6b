"""Runs one day in this process, recorded in Dagster's run history like every other run."""

import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

import dagster as dg
import sqlalchemy
import sqlalchemy.exc
from dagster import DagsterInstance
from dagster._core.definitions.events import AssetMaterialization, AssetObservation
from dagster._core.errors import DagsterAssetCheckFailedError, DagsterExecutionInterruptedError
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.pool import NullPool

from token_pipelines import shipped
from token_pipelines.clock import Clock, system_clock
from token_pipelines.config import Config
from token_pipelines.database import PSYCOPG2, explain, parse_postgres
from token_pipelines.defs import assets, numbers
from token_pipelines.defs.build import JOB, build_defs
from token_pipelines.defs.failures import ERROR_KEY, EXIT_STATUS_KEY
from token_pipelines.defs.names import Names
from token_pipelines.errors import ConfigError, FuseTripped, LedgerError
from token_pipelines.model import rfc3339

HOME_VARIABLE: Final = "DAGSTER_HOME"
STORAGE_VARIABLE: Final = "DAGSTER_POSTGRES_URL"
CONNECT_TIMEOUT_S: Final = 10
RETRYING: Final = "Retrying failed database connection"
"""How dagster_postgres begins the warning."""

NOW_TAG: Final = "token_pipelines/now"


@dataclass
class TierNumbers:
    """One tier's numbers of one run, counted in notices."""

    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(numbers.OUTCOMES, 0))
    skipped: dict[str, int] = field(default_factory=dict)
    not_written_back: int | None = None

    def as_object(self) -> dict[str, object]:
        """As in ``run --json``."""
        known = {} if self.not_written_back is None else {numbers.NOT_WRITTEN_BACK: self.not_written_back}
        return {**self.outcomes, "skipped": self.skipped, **known}


@dataclass
class DayReport:
    """What a run did, as its events tell it."""

    day: date
    pipeline: str | None
    run_id: str
    mode: str
    now: str
    succeeded: bool
    tiers: dict[str, TierNumbers]
    fuse: dict[str, object]
    examined: int = 0
    due: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    worst_exit_status: int = 0
    interrupted: bool = False
    write_back_fault: str = ""

    @property
    def exit_status(self) -> int:
        """0 done, 1 something due was not delivered, 2 the config is wrong."""
        if not self.succeeded:
            return max(1, self.worst_exit_status)
        undelivered = ("deferred", "failed", "unknown", "waiting") if self.mode != "dry_run" else ()
        return int(any(tier.outcomes[outcome] for tier in self.tiers.values() for outcome in undelivered))

    def as_object(self) -> dict[str, object]:
        """As printed by ``run --json``."""
        return {
            **({} if self.pipeline is None else {"pipeline": self.pipeline}),
            "date": self.day.isoformat(),
            "run_id": self.run_id,
            "status": "success" if self.succeeded else "failure",
            "mode": self.mode,
            "now": self.now,
            "fuse": self.fuse,
            "tokens": {"examined": self.examined, "due": self.due, "reasons": self.reasons},
            "tiers": {name: tier.as_object() for name, tier in self.tiers.items()},
        }


def set_environment(config: Config) -> None:
    """Name Dagster's home and storage where the environment does not: beside the config, in the ledger's database."""
    home = Path(os.environ.setdefault(HOME_VARIABLE, str(config.state_folder)))
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        shutil.copyfile(shipped.path("dagster.yaml"), home / "dagster.yaml")
    ledger = parse_postgres(config.ledger.url.get_secret_value(), "ledger.url", PSYCOPG2)
    os.environ.setdefault(STORAGE_VARIABLE, ledger.render_as_string(hide_password=False))


@contextmanager
def _instance(config: Config) -> Iterator[DagsterInstance]:
    key = STORAGE_VARIABLE if STORAGE_VARIABLE in os.environ else "ledger.url"
    set_environment(config)
    storage = parse_postgres(os.environ[STORAGE_VARIABLE], key, PSYCOPG2)
    try:
        # Dagster itself would try for seconds, say so on stderr each time, and raise an error of its own.
        connect_args = {"connect_timeout": CONNECT_TIMEOUT_S}
        sqlalchemy.create_engine(storage, poolclass=NullPool, connect_args=connect_args).connect().close()
        with DagsterInstance.get() as instance, _without_retries_said():
            yield instance
    except (sqlalchemy.exc.DBAPIError, DagsterPostgresException) as error:
        cause = error.__cause__ if isinstance(error, DagsterPostgresException) else error
        raise LedgerError(explain(getattr(cause, "orig", None) or error, storage, key)) from None


@contextmanager
def _without_retries_said() -> Iterator[None]:
    """Dagster warns of each time that it tries its storage again; what comes of it is said once, by us."""

    def is_ours(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(RETRYING)

    root = logging.getLogger()
    root.addFilter(is_ours)
    try:
        yield
    finally:
        root.removeFilter(is_ours)


def run_day(
    config: Config,
    *,
    day: date | None,
    tiers: Sequence[str],
    clock: Clock,
    approve: bool,
    on_progress: Callable[[str, int], None],
) -> DayReport:
    """Run a day's job, or some of its tiers, and tell what it did.

    Raises:
        ConfigError: if the day or a tier does not exist.
        LedgerError: if Dagster's storage cannot be reached, or is lost meanwhile.
    """
    now = clock()
    day = day or config.schedule.today(now)
    _refuse_unknown(config, day, tiers, today=config.schedule.today(now))
    names = Names(config.name)
    definitions = build_defs(config, clock=clock, on_progress=on_progress, pool=None)
    chosen = list(tiers) or [tier.name for tier in config.tier_ladder]
    tags = {assets.APPROVE_TAG: "true"} if approve else {}
    if clock is not system_clock:
        tags[NOW_TAG] = rfc3339(now)  # a rehearsal: its run must not be taken for one of that hour
    with _instance(config) as instance, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Dagster's own notices of coming changes are not the operator's
        result = definitions.resolve_job_def(names.prefixed(JOB)).execute_in_process(
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            instance=instance,
            partition_key=day.isoformat(),
            asset_selection=[names.expiring_tokens, *map(names.notices, chosen)] if tiers else None,
            tags=tags,
            raise_on_error=False,
        )
    report = DayReport(
        day=day,
        pipeline=config.name,
        run_id=result.run_id,
        mode=str(config.delivery.mode),
        now=rfc3339(now),
        succeeded=result.success,
        tiers={name: TierNumbers() for name in chosen},
        fuse={"tripped": False, "max_notices": config.delivery.max_notices},
    )
    _read_events(report, result.all_events)
    return report


def _refuse_unknown(config: Config, day: date, tiers: Sequence[str], *, today: date) -> None:
    known = [tier.name for tier in config.tier_ladder]
    for tier in tiers:
        if tier not in known:
            msg = f"--tier {tier} is not a tier of {config.path}; take one of {', '.join(known)}."
            raise ConfigError(msg)
    if day > today:
        msg = f"--date {day} has not come yet (today is {today}); run it on that day, or rehearse it with --now."
        raise ConfigError(msg)
    if day < config.schedule.start_date:
        msg = f"--date {day} lies before schedule.start_date, {config.schedule.start_date}; move it if you mean it."
        raise ConfigError(msg)


def _read_events(report: DayReport, events: Sequence[dg.DagsterEvent]) -> None:
    for event in events:
        data = event.event_specific_data
        if event.is_step_failure:
            _read_failure(report, event)
        described = getattr(data, "materialization", None) or getattr(data, "asset_observation", None)
        if isinstance(described, AssetMaterialization | AssetObservation):
            _read_numbers(report, described.asset_key, described.metadata)
        evaluation = getattr(data, "asset_check_name", None) or getattr(data, "check_name", None)
        if evaluation == "volume_is_plausible" and not getattr(data, "passed", True):
            report.fuse["tripped"] = True
            report.failures.append(getattr(data, "description", None) or "")
    missed = max(tier.not_written_back or 0 for tier in report.tiers.values())
    if missed:
        report.failures.append(numbers.explain_write_back(missed, report.write_back_fault))


def _read_failure(report: DayReport, event: dg.DagsterEvent) -> None:
    failure = event.step_failure_data.user_failure_data
    if failure is None:
        error = event.step_failure_data.error
        kind = (error.cls_name if error else None) or "an unknown error"
        if kind == DagsterAssetCheckFailedError.__name__:  # the check itself has said why
            return
        report.interrupted |= kind == DagsterExecutionInterruptedError.__name__
        report.failures.append(
            "The run was interrupted; what it had not sent waits for the next run."
            if report.interrupted
            else f"{event.step_key} failed by {kind}; the run's log in the Dagster UI has the details."
        )
        return
    metadata = failure.metadata
    report.failures.append(failure.description or "")
    report.worst_exit_status = max(report.worst_exit_status, int(str(metadata[EXIT_STATUS_KEY].value)))
    if metadata[ERROR_KEY].value == FuseTripped.__name__:
        report.fuse["tripped"] = True


def _read_numbers(report: DayReport, key: dg.AssetKey, metadata: Mapping[str, Any]) -> None:
    if key == Names(report.pipeline).expiring_tokens:
        report.examined, report.due = int(metadata["examined"].value), int(metadata["due"].value)
        report.reasons = numbers.read_numbers(metadata, numbers.REASON_PREFIX)
    elif key.path[-1] in report.tiers:
        tier = report.tiers[key.path[-1]]
        tier.outcomes = {outcome: int(metadata[outcome].value) for outcome in numbers.OUTCOMES}
        tier.skipped = numbers.read_numbers(metadata, numbers.SKIPPED_PREFIX)
        if numbers.NOT_WRITTEN_BACK in metadata:
            tier.not_written_back = int(metadata[numbers.NOT_WRITTEN_BACK].value)
        report.write_back_fault = numbers.read_text(metadata, numbers.WRITE_BACK_FAULT) or report.write_back_fault
