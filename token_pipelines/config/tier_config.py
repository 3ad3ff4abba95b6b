"""How a config writes a tier: its keys are the fields of the kinds in `tiers`; which go together is checked here."""

from collections.abc import Iterable
from dataclasses import MISSING, fields
from datetime import timedelta
from fractions import Fraction
from typing import Any, Final, Self

from pydantic import create_model, model_validator

from token_pipelines.config.sections import Section
from token_pipelines.config.value_types import Duration, Share
from token_pipelines.tiers import KINDS, Tier

WRITTEN_AS: Final[dict[Any, Any]] = {timedelta: Duration, Fraction: Share}
"""How the types of a tier's fields are written; any other type is written as pydantic reads it."""


def _with_keys_of_all_kinds(section: type["TierConfig"]) -> type["TierConfig"]:
    """Add every kind's fields as optional keys."""
    keys: dict[str, Any] = {
        field.name: (WRITTEN_AS.get(field.type, field.type) | None, None)
        for kind in KINDS
        for field in fields(kind)
        if field.name not in section.model_fields
    }
    return create_model(section.__name__, __base__=section, __doc__=section.__doc__, **keys)


@_with_keys_of_all_kinds
class TierConfig(Section):
    """A step of urgency, of one of the kinds in `tiers`."""

    name: str

    def to_tier(self) -> Tier:
        """The tier that these keys describe.

        Raises:
            ValueError: with one sentence that names the keys and how to write them.
        """
        given = {key: value for key, value in self if value is not None}
        kinds = [kind for kind in KINDS if kind.key in given]
        if len(kinds) != 1:
            msg = f"tier {self.name} needs either {_listed(KINDS)}"
            raise ValueError(msg)
        (kind,) = kinds
        for key in sorted(given.keys() - _keys(kind)):
            others = _listed(other for other in KINDS if key in _keys(other))
            msg = f"tier {self.name}: {key} goes with {others}, and with nothing else"
            raise ValueError(msg)
        if any(field.default is MISSING and field.name not in given for field in fields(kind)):
            msg = f"tier {self.name}: {kind.needs}"
            raise ValueError(msg)
        return kind(**given)

    @model_validator(mode="after")
    def _is_a_tier(self) -> Self:
        self.to_tier()
        return self


def _keys(kind: type[Tier]) -> set[str]:
    return {field.name for field in fields(kind)}


def _listed(kinds: Iterable[type[Tier]]) -> str:
    return " or ".join(f"{kind.key} (like {kind.like})" for kind in kinds)
