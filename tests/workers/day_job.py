"""The job of the config that TOKEN_PIPELINES_CONFIG names, at the tests' instant: what Dagster re-executes."""

import os
from pathlib import Path

import dagster as dg
from support.pipeline import NOW

from token_pipelines.config import load
from token_pipelines.defs.build import JOB, build_defs


def day_job() -> dg.JobDefinition:
    """Build it anew, as another process would."""
    return build_defs(load(Path(os.environ["TOKEN_PIPELINES_CONFIG"])), clock=lambda: NOW).resolve_job_def(JOB)
