"""The shipped config as data, to be changed."""

from collections.abc import Callable
from typing import Any

import yaml

from token_pipelines import shipped
from token_pipelines.config import Config

Load = Callable[..., Config]


def sample(**changes: object) -> dict[str, Any]:
    """The shipped config as data; ``smtp__port=25`` changes a nested key."""
    data: dict[str, Any] = yaml.safe_load(shipped.path("token_pipelines.yaml").read_text(encoding="utf-8"))
    for key, value in changes.items():
        *sections, last = key.split("__")
        place = data
        for section in sections:
            place = place[section]
        place[last] = value
    return data
