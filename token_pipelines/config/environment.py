"""Reads what the environment overrides: any key of the file, its levels joined by two underscores."""

import difflib
import os
from collections.abc import Collection
from typing import Any

from pydantic_settings import BaseSettings, EnvSettingsSource

from token_pipelines.config.config import ENV_PREFIX, LEVELS, PIPELINES, Config
from token_pipelines.errors import ConfigError

_BELOW_A_NAME = 3
"""How many levels a variable has at least that overrides a key of one pipeline: ``pipelines``, a name, a key."""


class _Keys(BaseSettings, Config):  # type: ignore[misc]  # two kinds of model_config
    """The config's fields as the reader of the environment needs them: as a settings class. Never instantiated."""


def variable(*key: str) -> str:
    """The variable that overrides a key: ``TOKEN_PIPELINES__SMTP__PASSWORD``."""
    return ENV_PREFIX + LEVELS.join(key).upper()


def overrides(key_path: tuple[str, ...]) -> dict[str, Any]:
    """The keys that the environment sets below ``key_path``, as nested tables.

    Raises:
        SettingsError: if a list or a table is not written as JSON.
    """
    prefix = variable(*key_path, "") if key_path else ENV_PREFIX
    return EnvSettingsSource(_Keys, env_prefix=prefix, env_nested_delimiter=LEVELS)()


def refuse_unknown_variables(names: Collection[str]) -> None:
    """Refuse variables with our prefix that override no key. Pydantic's reader would ignore them.

    Raises:
        ConfigError: if a variable names no section, or no pipeline among ``names``.
    """
    for name in os.environ:
        if name.upper().startswith(ENV_PREFIX):
            _refuse_unknown(name, name.upper().removeprefix(ENV_PREFIX).lower().split(LEVELS), names)


def _refuse_unknown(name: str, levels: list[str], names: Collection[str]) -> None:
    key_path: tuple[str, ...] = ()
    known: Collection[str] = Config.model_fields
    if levels[0] == PIPELINES:
        if len(levels) >= _BELOW_A_NAME and levels[1] in names:
            key_path, levels = (PIPELINES, levels[1]), levels[2:]
        else:
            key_path, known, levels = (PIPELINES,), names, levels[1:] or [""]
    if key_path == (PIPELINES,) or levels[0] not in known:
        near = difflib.get_close_matches(levels[0], known, n=1)
        hint = f"did you mean {variable(*key_path, near[0])}?" if near else "unset it, or check its spelling."
        msg = f"The environment variable {name} overrides no key we know; {hint}"
        raise ConfigError(msg)
