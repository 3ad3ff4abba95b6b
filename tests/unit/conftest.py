"""The shipped config with changes, and no overrides from the developer's own shell."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.config import Load, sample

from token_pipelines.config import ENV_PREFIX, Config, load
from token_pipelines.errors import ConfigError


@pytest.fixture(autouse=True)
def no_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide what the developer's own shell overrides."""
    for name in [name for name in os.environ if name.upper().startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture
def load_with(tmp_path: Path) -> Load:
    """Load the shipped config with changes."""

    def load_changed(**changes: object) -> Config:
        path = tmp_path / "token_pipelines.yaml"
        path.write_text(yaml.safe_dump(sample(**changes)), encoding="utf-8")
        return load(path)

    return load_changed


@pytest.fixture
def refusal(load_with: Load) -> Callable[..., str]:
    """Load the shipped config with changes that are wrong, and give what the operator reads."""

    def refuse(**changes: object) -> str:
        with pytest.raises(ConfigError) as caught:
            load_with(**changes)
        return str(caught.value)

    return refuse
