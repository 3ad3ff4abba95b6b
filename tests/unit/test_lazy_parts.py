"""A pipeline builds a part when it is used, and all of them when it is checked."""

from collections.abc import Callable
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from support.samples import shipped_config

from token_pipelines.config import Config, Origin
from token_pipelines.errors import ConfigError
from token_pipelines.pipeline import Pipeline

URL = "postgresql://reader@localhost/nothing"
WRONG: dict[str, dict[str, Any]] = {
    "template": {"email": {"templates": "nowhere"}},
    "query": {"source": {"query": "nowhere.sql"}},
    "statement": {"source": {"on_sent": "UPDATE tokens SET warned = true"}},
    "source": {"source": {"url": "demo://registry"}},
    "ledger": {"ledger": {"url": "sqlite:///ledger.db"}},
    "sender": {"email": {"from": "nobody"}},
    "link": {"email": {"links": {"manage": "https://example.org/", "unsubscribe": "https://example.org/{token_id}"}}},
    "key": {"dkim": {"domain": "example.org", "selector": "s", "key_file": "nowhere.pem"}},
}


def config(folder: Path, **changes: dict[str, Any]) -> Config:
    """The shipped config with databases of its own and these keys over it."""
    keys: dict[str, Any] = shipped_config().model_dump(mode="python", by_alias=True, exclude_none=True)
    ours = {"source": {"url": URL}, "ledger": {"url": URL}, "schedule": {"at": "09:00"}, "delivery": {}}
    for layer in (ours, changes):
        keys |= {section: keys.get(section, {}) | values for section, values in layer.items()}
    keys["tiers"] = [{"name": "week", "before": "7d"}]
    return Config.model_validate(keys, context=Origin(folder / "token_pipelines.yaml"))


@pytest.mark.parametrize("wrong", WRONG)
def test_check_finds_every_fault(tmp_path: Path, wrong: str) -> None:
    pipeline = Pipeline(config(tmp_path, **WRONG[wrong]))
    with pytest.raises(ConfigError):
        pipeline.check()


def test_check_builds_every_part(tmp_path: Path) -> None:
    pipeline = Pipeline(config(tmp_path))
    parts = {name for name, part in vars(Pipeline).items() if isinstance(part, cached_property)}
    assert not parts & set(vars(pipeline))
    with closing(pipeline):
        pipeline.check()
    assert parts <= set(vars(pipeline))


USES: dict[str, Callable[[Pipeline], object]] = {
    "source": lambda pipeline: pipeline.source,
    "ledger": lambda pipeline: pipeline.ledger,
    "relay": lambda pipeline: pipeline.relay,
    "policy": lambda pipeline: pipeline.policy,
    "serialiser": lambda pipeline: pipeline.serialiser,
    "renderer": lambda pipeline: pipeline.renderer,
}


@pytest.mark.parametrize(
    ("part", "wrong"),
    [
        ("source", "template"),
        ("source", "ledger"),
        ("source", "link"),
        ("source", "statement"),
        ("ledger", "template"),
        ("ledger", "query"),
        ("ledger", "key"),
        ("policy", "query"),
        ("relay", "source"),
        ("renderer", "query"),
        ("renderer", "ledger"),
        ("serialiser", "query"),
    ],
)
def test_part_needs_no_other(tmp_path: Path, part: str, wrong: str) -> None:
    pipeline = Pipeline(config(tmp_path, **WRONG[wrong]))
    assert USES[part](pipeline) is USES[part](pipeline)


def test_close_builds_nothing(tmp_path: Path) -> None:
    Pipeline(config(tmp_path, **WRONG["ledger"])).close()


def test_part_that_is_assigned_is_used(tmp_path: Path) -> None:
    first, second = (Pipeline(config(tmp_path)) for _ in range(2))
    second.source = first.source
    second.check()
    assert second.source is first.source
