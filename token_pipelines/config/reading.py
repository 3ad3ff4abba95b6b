"""Reads `token_pipelines.yaml` and the environment over it; a fault is one sentence that names the key.

Every key can be overridden by the environment, levels joined by two underscores: ``TOKEN_PIPELINES__SMTP__PASSWORD``.
Secrets come from there only. Whether a database or a relay answers is not known here.
"""

import difflib
import os
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError

from token_pipelines.config.config import DEFAULT_PATH, ENV_PREFIX, Config
from token_pipelines.errors import ConfigError

_SECRET_KEYS = (("smtp", "password"), ("dkim", "private_key"), ("dkim", "ed25519_private_key"))
_PASSWORD_IN_URL = re.compile(r"://[^:/]*:[^@]*@|[?&](ssl)?passw(or)?d=", re.IGNORECASE)


def load(path: Path = DEFAULT_PATH) -> Config:
    """Read and check the file at ``path``, with the environment's overrides.

    Raises:
        ConfigError: with one sentence that names the key and the cure.
    """
    data = _read(path)
    _refuse_secrets(path, data)
    _refuse_unknown_variables()
    try:
        config = Config(**data)
    except ValidationError as error:
        raise ConfigError(_sentence(path, error)) from None
    except SettingsError as error:
        msg = f"{path}: an environment override is not valid: {error}; lists and tables are written as JSON."
        raise ConfigError(msg) from None
    config._path = path.absolute()  # noqa: SLF001 -- set once, here; stays true when the process changes its folder
    return config


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        msg = f"{path} does not exist; name your config with --config, or start from the token_pipelines.yaml we ship."
        raise ConfigError(msg) from None
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{path} cannot be read ({error.__class__.__name__}); check the path and its permissions."
        raise ConfigError(msg) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-02-30
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        msg = f"{path} is not valid YAML{where}; check the indentation, the quotes and the dates there."
        raise ConfigError(msg) from None
    if not isinstance(data, dict):
        msg = f"{path} must hold keys like source, ledger and schedule; start from the token_pipelines.yaml we ship."
        raise ConfigError(msg)
    return {str(key): value for key, value in data.items()}


def _refuse_secrets(path: Path, data: dict[str, Any]) -> None:
    for section, key in _SECRET_KEYS:
        table = data.get(section)
        if isinstance(table, dict) and table.get(key) is not None:
            variable = f"{ENV_PREFIX}{section}__{key}".upper()
            msg = f"{path}: {section}.{key} does not belong in the file; set {variable} in the environment."
            raise ConfigError(msg)
    for section in ("source", "ledger"):
        table = data.get(section)
        url = table.get("url") if isinstance(table, dict) else None
        if isinstance(url, str) and _has_password(url):
            msg = (
                f"{path}: {section}.url holds a password, which does not belong in the file; "
                f"set {ENV_PREFIX}{section.upper()}__URL in the environment."
            )
            raise ConfigError(msg)


def _has_password(url: str) -> bool:
    return _PASSWORD_IN_URL.search(url) is not None


def _refuse_unknown_variables() -> None:
    """Settings' own reader passes over a variable whose first level it does not know."""
    for name in os.environ:
        section = name.upper().removeprefix(ENV_PREFIX).partition("__")[0].lower()
        if name.upper().startswith(ENV_PREFIX) and section not in Config.model_fields:
            near = difflib.get_close_matches(section, Config.model_fields, n=1)
            hint = f"did you mean {ENV_PREFIX}{near[0].upper()}?" if near else "unset it, or check its spelling."
            msg = f"The environment variable {name} overrides no key we know; {hint}"
            raise ConfigError(msg)


def _sentence(path: Path, error: ValidationError) -> str:
    """The first fault in words, without the value: it may be a secret."""
    fault = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(str(part) for part in fault["loc"])
    match fault["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(str(fault["loc"][-1]), _known_keys(fault["loc"][:-1]), n=1)
            hint = f"did you mean {near[0]}?" if near else "remove it, or check its spelling in docs/configuration.md."
            return f"{path}: {key} is not a key we know; {hint}"
        case "missing":
            return f"{path}: {key} is missing; add it (docs/configuration.md shows how)."
        case "value_error":
            place = f"{key}: " if key else ""
            return f"{path}: {place}{fault['msg'].removeprefix('Value error, ')}."
        case _:
            return f"{path}: {key} is not valid: {fault['msg']}."


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    model: Any = Config
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        args = getattr(annotation, "__args__", (annotation,))
        model = next((arg for arg in args if isinstance(arg, type) and issubclass(arg, BaseModel)), None)
        if model is None:
            return []
    return [field.alias or name for name, field in model.model_fields.items()]
