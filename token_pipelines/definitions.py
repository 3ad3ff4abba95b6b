"""What workspace.yaml points at: the definitions of the pipelines whose config is TOKEN_PIPELINES_CONFIG."""

import os
from pathlib import Path

import dagster as dg

from token_pipelines.config import CONFIG_VARIABLE, DEFAULT_PATH, load_all
from token_pipelines.defs.build import build_all_defs, build_defs

__all__ = ["CONFIG_VARIABLE", "build_all_defs", "build_defs", "defs"]


@dg.definitions
def defs() -> dg.Definitions:
    """Load the config that the environment names, by default token_pipelines.yaml, and build its definitions."""
    return build_all_defs(load_all(Path(os.environ.get(CONFIG_VARIABLE, DEFAULT_PATH))).values())
