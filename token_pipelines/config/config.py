"""One pipeline's whole configuration, put together from its sections and checked as a whole."""

from pathlib import Path
from typing import Self

from pydantic import Field, PrivateAttr, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from token_pipelines.config.sections import Delivery, Dkim, Email, Ledger, Schedule, Smtp, Source
from token_pipelines.config.tier_config import TierConfig
from token_pipelines.tiers import Tier

DEFAULT_PATH = Path("token_pipelines.yaml")
LEVELS = "__"
ENV_PREFIX = f"TOKEN_PIPELINES{LEVELS}"
PIPELINES = "pipelines"
"""The key below which a file holds several pipelines by name."""


class Config(BaseSettings):
    """One pipeline's whole configuration, checked. ``folder`` is where its file lies."""

    model_config = SettingsConfigDict(
        env_nested_delimiter=LEVELS, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    source: Source
    ledger: Ledger
    schedule: Schedule
    tiers: tuple[TierConfig, ...] = Field(min_length=1)
    email: Email
    dkim: Dkim | None = None
    smtp: Smtp = Smtp()
    delivery: Delivery = Delivery()

    _path: Path = PrivateAttr(default_factory=DEFAULT_PATH.absolute)
    _name: str | None = PrivateAttr(default=None)

    @property
    def name(self) -> str | None:
        """The pipeline's name; None when the file holds a single one."""
        return self._name

    @property
    def option(self) -> str:
        """What a command needs besides --config to work on this pipeline, to be told in a cure."""
        return f" --pipeline {self._name}" if self._name else ""

    @property
    def path(self) -> Path:
        """The file that this was read from."""
        return self._path

    @property
    def folder(self) -> Path:
        """The folder to which relative paths in the file are relative."""
        return self._path.parent

    @property
    def tier_ladder(self) -> tuple[Tier, ...]:
        """The tiers, most urgent first."""
        return tuple(sorted((written.to_tier() for written in self.tiers), key=lambda tier: tier.sort_key))

    @model_validator(mode="after")
    def _distinct_tiers(self) -> Self:
        names = [tier.name for tier in self.tiers]
        if len(set(names)) < len(names):
            msg = "tiers: two tiers have the same name; each needs its own"
            raise ValueError(msg)
        sort_keys = {tier.sort_key for tier in self.tier_ladder}
        if len(sort_keys) < len(self.tiers):
            msg = "tiers: two tiers begin at the same instant; drop one of them"
            raise ValueError(msg)
        return self

    @classmethod
    def settings_customise_sources(  # noqa: D102 -- pydantic-settings' hook: `reading` lays the environment over the file
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)
