"""What workspace.yaml points at: the definitions of the pipelines whose config is TOKEN_PIPELINES_CONFIG."""

import os
from pathlib import Path

import dagster as dg

from token_pipelines.config import CONFIG_VARIABLE, DEFAULT_PATH, load_all
from token_pipelines.defs.broken_config import failing_definitions, remember
from token_pipelines.defs.build import build_all_defs, build_defs
from token_pipelines.defs.launch import check_storage_variable
from token_pipelines.errors import ConfigError

__all__ = ["CONFIG_VARIABLE", "build_all_defs", "build_defs", "defs"]


@dg.definitions
def defs() -> dg.Definitions:
    """Load the config that the environment names, by default token_pipelines.yaml, and build its definitions.

    Raises:
        ConfigError: if the file is missing or wrong, or if Dagster's storage is reached by the wrong driver, and the
            file was never loaded before. If it was, sensors are returned that fail with the sentence.
    """
    path = Path(os.environ.get(CONFIG_VARIABLE, DEFAULT_PATH))
    try:
        return _load(path)
    except ConfigError as error:
        return failing_definitions(path, error)


def _load(path: Path) -> dg.Definitions:
    if not path.exists():
        msg = f"{path.absolute()} does not exist; set the environment variable {CONFIG_VARIABLE} to your config's path."
        raise ConfigError(msg)
    check_storage_variable()
    configs = load_all(path)
    definitions = build_all_defs(configs.values())
    remember(path, list(configs))
    return definitions
