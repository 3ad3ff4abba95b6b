"""One pipeline's whole configuration: its sections, and the rules that concern more than one of them."""

from pathlib import Path
from typing import Any, Final, Self

from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from token_pipelines import shipped
from token_pipelines.config.origin import Origin
from token_pipelines.config.sections import Delivery, Dkim, Email, Ledger, Schedule, Section, Smtp, Source
from token_pipelines.config.tier_config import TierConfig
from token_pipelines.tiers import Tier

DEFAULT_PATH = Path(shipped.CONFIG)
LEVELS = "__"
ENV_PREFIX = f"TOKEN_PIPELINES{LEVELS}"
DEMO_SCHEME: Final = "demo://"
STATE_FOLDER: Final = ".token_pipelines"
PIPELINES = "pipelines"
"""The key below which a file holds several pipelines, by name."""


class Config(Section):
    """One pipeline's whole configuration, checked. Validated with an `Origin` as the context, it knows its file."""

    model_config = ConfigDict(hide_input_in_errors=True)

    source: Source
    ledger: Ledger
    schedule: Schedule
    tiers: tuple[TierConfig, ...] = Field(min_length=1)
    email: Email
    dkim: Dkim | None = None
    smtp: Smtp = Smtp()
    delivery: Delivery = Delivery()

    _origin: Origin = PrivateAttr(default=Origin(DEFAULT_PATH))

    def model_post_init(self, context: Any, /) -> None:  # noqa: ANN401 -- pydantic's hook
        """Remember where the config was read."""
        if isinstance(context, Origin):
            self._origin = context

    @property
    def name(self) -> str | None:
        """The pipeline's name; None when the file holds a single one."""
        return self._origin.pipeline

    @property
    def names(self) -> tuple[str | None, ...]:
        """The names of all pipelines in the file, this one's among them."""
        return self._origin.names or (self.name,)

    @property
    def option(self) -> str:
        """What a command needs besides --config to work on this pipeline, for messages that say what to run."""
        return f" --pipeline {self.name}" if self.name else ""

    @property
    def path(self) -> Path:
        """The file that this was read from."""
        return self._origin.path.absolute()

    @property
    def folder(self) -> Path:
        """The file's folder."""
        return self._origin.folder

    @property
    def state_folder(self) -> Path:
        """Where the product keeps files of its own: beside the config."""
        return self.folder / STATE_FOLDER

    @property
    def is_demo(self) -> bool:
        """Whether it names the demo's databases and not an operator's own."""
        return self.source.url.get_secret_value().startswith(DEMO_SCHEME)

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
