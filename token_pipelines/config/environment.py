"""Reads what the environment overrides: any key of the file, its levels joined by two underscores."""

import difflib
import os
from collections.abc import Collection, Iterator
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic_settings import BaseSettings, EnvSettingsSource

from token_pipelines.config.config import ENV_PREFIX, LEVELS, PIPELINES, Config
from token_pipelines.errors import ConfigError

_BELOW_A_NAME = 3
"""How many levels a variable has at least that overrides a key of one pipeline: ``pipelines``, a name, a key."""


OUR_NAME: Final = "TOKEN_PIPELINES"
"""How every variable of ours begins."""

CONFIG_VARIABLE: Final = f"{OUR_NAME}_CONFIG"
"""The file that Dagster's processes read; the command line has --config instead."""

OTHERS: Final = frozenset(
    {CONFIG_VARIABLE, f"{OUR_NAME}_REQUIRE_ALL", f"{OUR_NAME}_STATE_MACHINE_EXAMPLES"}  # the last two are the tests'
)
"""Variables of ours that override no key."""

_NEAR: Final = 0.8
"""How similar a variable's name must be to the one that we suggest, without the part that all have."""


class _Settings(BaseSettings, Config):  # type: ignore[misc]  # two kinds of model_config
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
    return EnvSettingsSource(_Settings, env_prefix=prefix, env_nested_delimiter=LEVELS)()


def refuse_unknown_variables(names: Collection[str]) -> None:
    """Refuse variables that begin with our name and override no key. Pydantic's reader would ignore them.

    Raises:
        ConfigError: if a variable names no section, or no pipeline among ``names``.
    """
    for name in os.environ:
        if name.upper().startswith(ENV_PREFIX):
            _refuse_unknown(name, name.upper().removeprefix(ENV_PREFIX).lower().split(LEVELS), names)
        elif name.upper().startswith(OUR_NAME) and name.upper() not in OTHERS:
            known = {LEVELS.join(key).upper(): variable(*key) for key in _keys(Config)}
            near = difflib.get_close_matches(name.upper().removeprefix(OUR_NAME).strip("_"), known, n=1, cutoff=_NEAR)
            hint = f"did you mean {known[near[0]]}?" if near else "unset it, or check its spelling."
            msg = f"The environment variable {name} overrides no key we know; {hint}"
            raise ConfigError(msg)


def _keys(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key that can be overridden by itself, as the names that lead to it."""
    for name, field in model.model_fields.items():
        key = (*above, field.alias or name)
        yield key
        kinds = (field.annotation, *get_args(field.annotation))
        for section in (kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)):
            yield from _keys(section, key)


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
