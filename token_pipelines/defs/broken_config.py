"""A config that breaks while Dagster runs: its sensors go on with ticks that fail and say why.

Without definitions, the daemon would evaluate nothing any more, and show nothing either.
"""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

import dagster as dg

from token_pipelines.config import STATE_FOLDER
from token_pipelines.defs.missed_days import INTERVAL_S, SENSOR
from token_pipelines.defs.names import Names
from token_pipelines.errors import ConfigError

LOADED: Final = "loaded.json"
"""In the state folder: the names of the pipelines that were loaded last, so that the same sensors can fail."""


def remember(config_path: Path, names: Sequence[str | None]) -> None:
    """Keep the names of the pipelines of a config that could be loaded. A folder that is read-only keeps none."""
    with suppress(OSError):
        kept = _kept(config_path)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(list(names)), encoding="utf-8")


def failing_definitions(config_path: Path, error: ConfigError) -> dg.Definitions:
    """A sensor for each pipeline that was loaded last; each tick fails with the error's sentence.

    Raises:
        ConfigError: the given one, if nothing was ever loaded: then somebody is looking.
    """
    try:
        names = json.loads(_kept(config_path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise error from None
    return dg.Definitions(sensors=[_failing_sensor(Names(name), str(error)) for name in names])


def _failing_sensor(names: Names, sentence: str) -> dg.SensorDefinition:
    @dg.sensor(
        name=names.prefixed(SENSOR),
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Nothing runs: {sentence}",
    )
    def backfill_missed_days(_context: dg.SensorEvaluationContext) -> NoReturn:
        msg = f"No day is run until this is corrected: {sentence}"
        raise ConfigError(msg)

    return backfill_missed_days


def _kept(config_path: Path) -> Path:
    return config_path.absolute().parent / STATE_FOLDER / LOADED
