"""Runs one day in this process. Dagster records the run in its history like every other run."""

import getpass
import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Final

import sqlalchemy
from dagster import DagsterInstance
from sqlalchemy.pool import NullPool

from token_pipelines import shipped
from token_pipelines.clock import Clock, system_clock
from token_pipelines.config import LEDGER_URL, Config
from token_pipelines.database import PSYCOPG2, DatabaseUrl
from token_pipelines.defs.build import JOB, build_defs
from token_pipelines.defs.day_report import DayReport, TierNumbers
from token_pipelines.defs.instance_storage import STORAGE_VARIABLE, explained
from token_pipelines.defs.names import Names
from token_pipelines.defs.tags import APPROVE_TAG, APPROVED_BY_TAG, NOW_TAG
from token_pipelines.errors import ConfigError
from token_pipelines.model import rfc3339

HOME_VARIABLE: Final = "DAGSTER_HOME"
CONNECT_TIMEOUT_S: Final = 10
RETRYING: Final = "Retrying failed database connection"
"""How the warning of dagster_postgres begins."""


def set_environment(config: Config) -> None:
    """Set Dagster's home (beside the config) and storage (the ledger's database), unless the environment sets them."""
    home = Path(os.environ.setdefault(HOME_VARIABLE, str(config.state_folder)))
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "dagster.yaml").exists():
        shutil.copyfile(shipped.path("dagster.yaml"), home / "dagster.yaml")
    ledger = DatabaseUrl.read_postgres(config.ledger.url.get_secret_value(), LEDGER_URL, PSYCOPG2)
    os.environ.setdefault(STORAGE_VARIABLE, ledger.parsed.render_as_string(hide_password=False))


def check_storage_variable() -> None:
    """Refuse a URL of Dagster's storage that leads to another driver than the one that Dagster works with.

    Raises:
        ConfigError: Dagster itself would start, and then fail to launch runs.
    """
    url = os.environ.get(STORAGE_VARIABLE, "")
    if url.partition("://")[0] in {"postgresql", "postgres"}:
        msg = f"{STORAGE_VARIABLE} must begin with {PSYCOPG2}://, the driver that Dagster needs; correct its beginning."
        raise ConfigError(msg)


@contextmanager
def _instance(config: Config) -> Iterator[DagsterInstance]:
    key = STORAGE_VARIABLE if STORAGE_VARIABLE in os.environ else LEDGER_URL
    set_environment(config)
    storage = DatabaseUrl.read_postgres(os.environ[STORAGE_VARIABLE], key, PSYCOPG2)
    os.environ[STORAGE_VARIABLE] = storage.parsed.render_as_string(hide_password=False)  # whichever driver it names
    with explained(storage):
        # Dagster itself would retry for seconds, warn on stderr each time, and raise its own error.
        connect_args = {"connect_timeout": CONNECT_TIMEOUT_S}
        sqlalchemy.create_engine(storage.parsed, poolclass=NullPool, connect_args=connect_args).connect().close()
        with DagsterInstance.get() as instance, _without_retry_warnings():
            yield instance


@contextmanager
def _without_retry_warnings() -> Iterator[None]:
    """Hide Dagster's warning for each retry of its storage: if the storage stays lost, we raise one error."""

    def is_ours(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(RETRYING)

    root = logging.getLogger()
    root.addFilter(is_ours)
    try:
        yield
    finally:
        root.removeFilter(is_ours)


def launch_day(
    config: Config,
    *,
    day: date | None,
    tiers: Sequence[str],
    clock: Clock,
    approve: bool,
    on_progress: Callable[[str, int], None],
) -> DayReport:
    """Run a day's job, or some of its tiers, and report what it did.

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
    tags = {APPROVE_TAG: "true", APPROVED_BY_TAG: _user()} if approve else {}
    if clock is not system_clock:
        tags[NOW_TAG] = rfc3339(now)  # a rehearsal: marks its run, which does not happen at the time that it shows
    with _instance(config) as instance, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Dagster's deprecation warnings do not concern the operator
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
    report.read(result.all_events)
    return report


def _user() -> str:
    """The user of this process. In a container there may be a number only."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


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
