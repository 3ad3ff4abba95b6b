"""Reads `token_pipelines.yaml`, with the environment over it. An error is one sentence that names the key.

The file holds one pipeline; or several by name below ``pipelines``, and beside it the keys that they share. The keys of
a name override the shared ones. The environment overrides any key: ``TOKEN_PIPELINES__SMTP__PASSWORD``. Secrets come
from the environment only. Nothing here connects to a database or a relay.
"""

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from token_pipelines.config.config import DEFAULT_PATH, PIPELINES, Config
from token_pipelines.config.environment import overrides, refuse_unknown_variables, variable
from token_pipelines.config.messages import Layer, Lines, describe_error
from token_pipelines.config.origin import Origin
from token_pipelines.config.sections import LEDGER_URL, ON_SENT_URL, SOURCE_URL
from token_pipelines.config.yaml_text import YamlError, read_yaml
from token_pipelines.errors import ConfigError
from token_pipelines.text_files import UnreadableFileError, read_text

_SECRET_KEYS = (
    ("smtp", "password"),
    ("ledger", "address_key"),
    ("dkim", "private_key"),
    ("dkim", "ed25519_private_key"),
)
_URL_KEYS = tuple(key.split(".") for key in (SOURCE_URL, ON_SENT_URL, LEDGER_URL))
_PASSWORD_IN_URL = re.compile(r"://[^:/]*:[^@]*@|(?:[?&;]|%3B)\w*(passw(or)?d|pwd|secret)(?:=|%3D)", re.IGNORECASE)
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LONGEST_NAME = 31


def load(path: Path = DEFAULT_PATH, pipeline: str | None = None) -> Config:
    """Read and check one pipeline of the file at ``path``, with the environment's overrides.

    Args:
        path: the file.
        pipeline: which of its pipelines; None where the file holds a single one, which has no name.

    Raises:
        ConfigError: with one sentence that names the key and the cure.
    """
    shared, named = _layers(path)
    if named is None and pipeline is not None:
        msg = f"{path} holds a single pipeline, which has no name; leave out --pipeline {pipeline}."
        raise ConfigError(msg)
    if named is None:
        return _checked(path, None, shared)
    if pipeline not in named:
        what = "holds several pipelines" if pipeline is None else f"holds no pipeline {pipeline}"
        msg = f"{path} {what}; choose one with --pipeline: {', '.join(named)}."
        raise ConfigError(msg)
    return _checked(path, pipeline, shared, named[pipeline], names=tuple(named))


def load_all(path: Path = DEFAULT_PATH) -> dict[str | None, Config]:
    """Read and check every pipeline of the file, by name and in its order; a single one has the name None.

    Raises:
        ConfigError: with one sentence that names the key and the cure.
    """
    shared, named = _layers(path)
    if named is None:
        return {None: _checked(path, None, shared)}
    return {name: _checked(path, name, shared, layer, names=tuple(named)) for name, layer in named.items()}


def _checked(path: Path, name: str | None, *layers: Layer, names: tuple[str, ...] = ()) -> Config:
    keys: dict[str, Any] = {}
    for layer in layers:
        keys = _laid_over(keys, layer.keys)
    try:
        # The path stays true when the process changes its folder.
        return Config.model_validate(keys, context=Origin(path.absolute(), name, names))
    except ValidationError as error:
        raise ConfigError(describe_error(path, error, layers)) from None


def _layers(path: Path) -> tuple[Layer, dict[str, Layer] | None]:
    """The keys for all pipelines, and those of each pipeline by name; None if the file holds a single one."""
    data, lines = _read(path)
    named = _named(path, data)
    refuse_unknown_variables(named or ())
    shared = _layer(path, (), {key: value for key, value in data.items() if key != PIPELINES}, lines)
    if named is None:
        return shared, None
    return shared, {name: _layer(path, (PIPELINES, name), keys, lines) for name, keys in named.items()}


def _layer(path: Path, key_path: tuple[str, ...], data: dict[str, Any], lines: Lines) -> Layer:
    _refuse_secrets(path, key_path, data)
    try:
        above = overrides(key_path)
        return Layer(key_path, _laid_over(data, above), above, lines)
    except SettingsError as error:
        msg = f"{path}: an environment override is not valid: {error}; lists and tables are written as JSON."
        raise ConfigError(msg) from None


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """The keys of ``above`` over those of ``below``. Tables are merged; everything else, lists too, is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _laid_over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _named(path: Path, data: dict[str, Any]) -> dict[str, dict[str, Any]] | None:
    if PIPELINES not in data:
        return None
    found = data[PIPELINES]
    if not isinstance(found, dict) or not found:
        msg = f"{path}: {PIPELINES} must hold one table of keys for each name, like user_tokens; or leave it out."
        raise ConfigError(msg)
    for name, keys in found.items():
        if not isinstance(name, str) or _NAME.fullmatch(name) is None or len(name) > _LONGEST_NAME:
            msg = (
                f"{path}: {PIPELINES}: name {name!r} must be lower case letters, digits and single _ between them, "
                f"start with a letter and have at most {_LONGEST_NAME} characters, like user_tokens."
            )
            raise ConfigError(msg)
        if not isinstance(keys, dict | None):
            msg = f"{path}: {PIPELINES}.{name} must hold keys like source and tiers."
            raise ConfigError(msg)
    return {name: _with_text_keys(keys or {}) for name, keys in found.items()}


def _read(path: Path) -> tuple[dict[str, Any], Lines]:
    """The file's keys, and the line of each."""
    if not path.exists():
        msg = f"{path} does not exist; name your config with --config, or start from the token_pipelines.yaml we ship."
        raise ConfigError(msg)
    try:
        written = read_yaml(read_text(path))
    except (UnreadableFileError, YamlError) as error:
        msg = f"{path} {error}."
        raise ConfigError(msg) from None
    if not isinstance(written.values, dict):
        msg = f"{path} must hold keys like source, ledger and schedule; start from the token_pipelines.yaml we ship."
        raise ConfigError(msg)
    return _with_text_keys(written.values), written.lines


def _with_text_keys(data: dict[Any, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in data.items()}


def _refuse_secrets(path: Path, key_path: tuple[str, ...], data: dict[str, Any]) -> None:
    prefix = "".join(f"{part}." for part in key_path)
    for section, key in _SECRET_KEYS:
        table = data.get(section)
        if isinstance(table, dict) and table.get(key) is not None:
            msg = (
                f"{path}: {prefix}{section}.{key} does not belong in the file; "
                f"set {variable(*key_path, section, key)} in the environment."
            )
            raise ConfigError(msg)
    for section, key in _URL_KEYS:
        table = data.get(section)
        url = table.get(key) if isinstance(table, dict) else None
        if isinstance(url, str) and _PASSWORD_IN_URL.search(url) is not None:
            msg = (
                f"{path}: {prefix}{section}.{key} holds a password, which does not belong in the file; "
                f"set {variable(*key_path, section, key)} in the environment."
            )
            raise ConfigError(msg)
