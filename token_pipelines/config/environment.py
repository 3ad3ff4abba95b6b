"""What the environment overrides: every key of the file, at its place, levels joined by two underscores."""

import difflib
import os
from collections.abc import Collection
from typing import Any

from pydantic_settings import BaseSettings, EnvSettingsSource

from token_pipelines.config.config import ENV_PREFIX, LEVELS, PIPELINES, Config
from token_pipelines.errors import ConfigError

_BELOW_A_NAME = 3
"""``pipelines``, a name and a key: a variable that overrides something of one pipeline has at least these levels."""


class _Keys(BaseSettings, Config):  # type: ignore[misc]  # two kinds of model_config
    """The config's fields as the reader of the environment needs them: as a settings class. Never instantiated."""


def variable(*key: str) -> str:
    """The variable that overrides a key: ``TOKEN_PIPELINES__SMTP__PASSWORD``."""
    return ENV_PREFIX + LEVELS.join(key).upper()


def overrides(place: tuple[str, ...]) -> dict[str, Any]:
    """The keys that the environment sets at a place, as tables in tables.

    Raises:
        SettingsError: if a list or a table is not written as JSON.
    """
    prefix = variable(*place, "") if place else ENV_PREFIX
    return EnvSettingsSource(_Keys, env_prefix=prefix, env_nested_delimiter=LEVELS)()


def refuse_unknown_variables(names: Collection[str]) -> None:
    """Settings' own reader passes over a variable whose first level it does not know.

    Raises:
        ConfigError: if one overrides no section, or a section of no pipeline among ``names``.
    """
    for name in os.environ:
        if name.upper().startswith(ENV_PREFIX):
            _refuse_unknown(name, name.upper().removeprefix(ENV_PREFIX).lower().split(LEVELS), names)


def _refuse_unknown(name: str, levels: list[str], names: Collection[str]) -> None:
    place: tuple[str, ...] = ()
    known: Collection[str] = Config.model_fields
    if levels[0] == PIPELINES:
        if len(levels) >= _BELOW_A_NAME and levels[1] in names:
            place, levels = (PIPELINES, levels[1]), levels[2:]
        else:
            place, known, levels = (PIPELINES,), names, levels[1:] or [""]
    if place == (PIPELINES,) or levels[0] not in known:
        near = difflib.get_close_matches(levels[0], known, n=1)
        hint = f"did you mean {variable(*place, near[0])}?" if near else "unset it, or check its spelling."
        msg = f"The environment variable {name} overrides no key we know; {hint}"
        raise ConfigError(msg)
