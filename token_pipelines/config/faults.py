"""Puts a fault of the config into one sentence that names its key where the operator wrote it."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from token_pipelines.config.config import PIPELINES, Config


@dataclass(frozen=True)
class Layer:
    """What stands at one place: at the top of the file, or below the name of a pipeline. The environment included."""

    place: tuple[str, ...]
    keys: dict[str, Any]

    def holds(self, location: Sequence[int | str]) -> bool:
        """Whether the key at this location was written here."""
        found: Any = self.keys
        for part in location:
            try:
                found = found[part]
            except (KeyError, IndexError, TypeError):
                return False
        return bool(location)


def sentence(path: Path, error: ValidationError, layers: Sequence[Layer]) -> str:
    """One fault in words, without the value: it may be a secret. The last of the layers is the uppermost."""
    faults = error.errors(include_url=False, include_input=False)
    # An unknown key before a missing one: it is that one, misspelt.
    fault = min(faults, key=lambda fault: fault["type"] != "extra_forbidden")
    location = fault["loc"]
    written = next((layer for layer in reversed(layers) if layer.holds(location)), layers[-1])
    key = ".".join(str(part) for part in (*written.place, *location))
    match fault["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(str(location[-1]), _known_keys(location[:-1], written.place), n=1)
            hint = f"did you mean {near[0]}?" if near else "remove it, or check its spelling in docs/configuration.md."
            return f"{path}: {key} is not a key we know; {hint}"
        case "missing":
            return f"{path}: {key} is missing; add it (docs/configuration.md shows how)."
        case "value_error":
            place = f"{key}: " if key else ""
            return f"{path}: {place}{fault['msg'].removeprefix('Value error, ')}."
        case _:
            return f"{path}: {key} is not valid: {fault['msg']}."


def _known_keys(location: tuple[int | str, ...], place: tuple[str, ...]) -> list[str]:
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
    return [*known, PIPELINES] if not location and not place else known
