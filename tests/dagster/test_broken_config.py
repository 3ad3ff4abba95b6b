"""A config that breaks under a running daemon: its ticks fail with the sentence, instead of stopping."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from support.commands import Configure

from token_pipelines.definitions import defs as code_location
from token_pipelines.errors import ConfigError

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"),
    pytest.mark.usefixtures("bare_environment"),
]

BREAKS: dict[str, Callable[[Path], Any]] = {
    "a typo": lambda path: path.write_text(path.read_text().replace("smtp:", "stmp:")),
    "no YAML": lambda path: path.write_text("source: ["),
    "no file": lambda path: path.unlink(),
}


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("what", BREAKS)
def test_ticks_of_a_config_that_broke_fail_with_the_sentence(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, what: str, *, named: bool
) -> None:
    path = configure(25, **({"pipelines": {"users": {}, "keys": {}}} if named else {}))
    monkeypatch.setenv("TOKEN_PIPELINES_CONFIG", str(path))
    good = {sensor.name for sensor in code_location().get_repository_def().sensor_defs}
    BREAKS[what](path)

    broken = code_location()

    sensors = {sensor.name: sensor for sensor in broken.get_repository_def().sensor_defs}
    assert set(sensors) == good
    for sensor in sensors.values():
        assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
        with pytest.raises(ConfigError, match=r"^No day is run until this is corrected: .*token_pipelines\.yaml"):
            sensor.evaluate_tick(dg.build_sensor_context(definitions=broken))


def test_config_that_was_never_loaded_is_refused(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    path = configure(25)
    BREAKS["a typo"](path)
    monkeypatch.setenv("TOKEN_PIPELINES_CONFIG", str(path))
    with pytest.raises(ConfigError, match="stmp is not a key we know"):
        code_location()
