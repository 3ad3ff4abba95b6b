"""Describes what is wrong in the config: one sentence, which names the key where the operator wrote it."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from token_pipelines.config.config import PIPELINES, Config

Lines = Mapping[tuple[int | str, ...], int]
"""The line of each key of the file, by the keys and positions that lead to it."""


_NAME: Final = re.compile(r"[a-z0-9_]{1,31}")


@dataclass(frozen=True)
class Layer:
    """The keys that are written at one level: at the top of the file, or below a pipeline's name in it.

    Keys that the environment overrides are included.
    """

    key_path: tuple[str, ...]
    """The keys that lead to this level: none, or ``pipelines`` and a name."""

    keys: dict[str, Any]

    overrides: dict[str, Any]
    """Those of the keys that the environment sets."""

    lines: Lines
    """At which line of the file a key is."""

    def holds(self, location: Sequence[int | str]) -> bool:
        """Whether this layer has a key at this location."""
        return _holds(self.keys, location)

    def line(self, location: Sequence[int | str]) -> int | None:
        """The line of a key in the file; None where the file does not have it, or the environment overrides it."""
        if _holds(self.overrides, location):
            return None
        return self.lines.get((*self.key_path, *location))


def _holds(keys: Any, location: Sequence[int | str]) -> bool:  # noqa: ANN401 -- YAML
    for part in location:
        try:
            keys = keys[part]
        except (KeyError, IndexError, TypeError):
            return False
    return bool(location)


def describe_error(path: Path, error: ValidationError, layers: Sequence[Layer]) -> str:
    """One sentence on the first error, without the value, which may be a secret.

    Args:
        path: the file.
        error: what the validation of the merged layers raised.
        layers: each over the one before it.
    """
    errors = error.errors(include_url=False, include_input=False)
    # An unknown key comes before a missing one: often it is the missing one, misspelt.
    first = min(errors, key=lambda found: found["type"] != "extra_forbidden")
    location = first["loc"]
    written = next((layer for layer in reversed(layers) if layer.holds(location)), layers[-1])
    key = ".".join((*written.key_path, *_shown(location, written.keys)))
    line = written.line(location)
    where = f"{path} line {line}" if line is not None else str(path)
    match first["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(str(location[-1]), _known_keys(location[:-1], written.key_path), n=1)
            hint = f"did you mean {near[0]}?" if near else "remove it, or check its spelling in docs/configuration.md."
            return f"{where}: {key} is not a key we know; {hint}"
        case "missing":
            return f"{where}: {key} is missing; add it (docs/configuration.md shows how)."
        case "value_error":
            prefix = f"{key}: " if key else ""
            return f"{where}: {prefix}{first['msg'].removeprefix('Value error, ')}."
        case _:
            return f"{where}: {key} is not valid: {first['msg']}."


def _shown(location: Sequence[int | str], keys: Any) -> Iterator[str]:  # noqa: ANN401 -- YAML
    """The parts of a key's path. What is in a list is named; without a name it is counted from one."""
    for part in location:
        try:
            keys = keys[part]
        except (KeyError, IndexError, TypeError):
            keys = None
        name = keys.get("name") if isinstance(part, int) and isinstance(keys, dict) else None
        if isinstance(name, str) and _NAME.fullmatch(name):
            yield name
        else:
            yield str(part + 1 if isinstance(part, int) else part)


def _known_keys(location: tuple[int | str, ...], key_path: tuple[str, ...]) -> list[str]:
    model: Any = Config
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        args = getattr(annotation, "__args__", (annotation,))
        model = next((arg for arg in args if isinstance(arg, type) and issubclass(arg, BaseModel)), None)
        if model is None:
            return []
    known = [field.alias or name for name, field in model.model_fields.items()]
    return [*known, PIPELINES] if not location and not key_path else known
