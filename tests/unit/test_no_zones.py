"""A machine without files of time zones: one sentence when the config is read, and nothing that fails later."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from support.config import sample

from token_pipelines.config import Origin
from token_pipelines.config import Source as SourceConfig
from token_pipelines.errors import ConfigError
from token_pipelines.source import instants
from token_pipelines.source.source import Source

READ = """
import sys
sys.modules["tzdata"] = None
from pathlib import Path
from token_pipelines.config import load
from token_pipelines.errors import ConfigError
try:
    load(Path(sys.argv[1]))
except ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize(
    "changes",
    [
        {"source__timezone": None},
        {"schedule__timezone": "Europe/Berlin", "source__timezone": None},
        {"source__timezone": "Asia/Tokyo"},
    ],
)
def test_no_files_at_all_are_named_when_the_config_is_read(tmp_path: Path, changes: dict[str, str | None]) -> None:
    """Not even UTC is known then, which is the schedule's default; recipients' zones would not be either."""
    path = tmp_path / "token_pipelines.yaml"
    path.write_text(yaml.safe_dump(sample(**changes)), encoding="utf-8")
    environment = {**os.environ, "PYTHONTZPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], env=environment, capture_output=True, text=True, check=True
    )
    key = "schedule.timezone" if changes["source__timezone"] is None else "source.timezone"
    said = "cannot be looked up, since this machine has no time zones; install them (pip install tzdata)."
    assert f"{key}: {said}" in done.stdout
    assert "is not a time zone" not in done.stdout


@pytest.fixture
def _no_system_zones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow finds no files, though Python has its package."""

    def fail(*_: object, **__: object) -> None:
        msg = "Cannot locate or parse timezone: discover_tz_dir failed to find zoneinfo"
        raise pa.ArrowInvalid(msg)

    monkeypatch.setattr(pc, "assume_timezone", fail)


@pytest.mark.usefixtures("_no_system_zones")
def test_zone_of_the_source_that_arrow_cannot_find_is_named(tmp_path: Path) -> None:
    config = {"url": "sqlite:///x.db", "query": "crates_io", "timezone": "Europe/Berlin"}
    with pytest.raises(ConfigError) as caught:
        Source(SourceConfig.model_validate(config, context=Origin(tmp_path / "c.yaml")))
    assert str(caught.value) == (
        "source.timezone: Europe/Berlin is not among the time zones of this machine; install the system's package"
        " tzdata (apt-get install tzdata), or convert the columns in SQL and write UTC."
    )


@pytest.mark.usefixtures("_no_system_zones")
def test_utc_needs_no_files() -> None:
    instants.check_zone("UTC")
