"""The process that is killed: one run of the real product without Dagster, every tier, from a config file."""

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from chaos import sabotage

from token_pipelines.config import load
from token_pipelines.day import run_day
from token_pipelines.errors import TokenPipelinesError
from token_pipelines.pipeline import Pipeline

log = logging.getLogger("chaos")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the process is told. ``ended`` lists the runs that the orchestrator knows to have ended, one a line."""

    run_id: str
    config: Path
    ended: Path
    log: Path
    password: str
    sabotage: str | None


def work(order: Order) -> None:
    """The whole life of the process. Its exit status: 0 all done, 1 a trouble that the product names, 2 another."""
    log_file = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log_file, sys.stdout.fileno())
    os.dup2(log_file, sys.stderr.fileno())
    logging.basicConfig(format="%(asctime)s %(threadName)s %(levelname)s %(message)s", level=logging.INFO)
    os.environ["TOKEN_PIPELINES__SMTP__PASSWORD"] = order.password
    sabotage.apply(order.sabotage)
    try:
        troubles = run(Pipeline(load(order.config)), order.run_id, order.ended)
    except TokenPipelinesError as error:
        log.warning("stopped: %s", error)
        sys.exit(1)
    except Exception:
        log.exception("a fault of ours")
        sys.exit(2)
    sys.exit(1 if troubles else 0)


def run(parts: Pipeline, run_id: str, ended: Path) -> int:
    """Run today; how many tiers were stopped by a trouble."""
    parts.ledger.migrate()
    result = run_day(parts, run_id=run_id, has_ended=lambda other: _has_ended(ended, other))
    for error in result.troubles:
        log.warning("a tier stopped: %s", error)
    return len(result.troubles)


def _has_ended(ended: Path, run_id: str) -> bool:
    return run_id in ended.read_text().split()
