"""`token_pipelines.yaml`, typed. Unknown keys are refused; secrets come from the environment only.

Every key can be overridden by the environment, levels joined by two underscores:
``TOKEN_PIPELINES__SMTP__PASSWORD``. Relative paths are relative to the file. Reads the file and the
environment, and nothing else: whether a database or a relay answers is not known here.
"""

import difflib
import os
import re
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Literal, Self
from zoneinfo import ZoneInfo

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from token_pipelines.errors import ConfigError
from token_pipelines.model import Mode, Tier
from token_pipelines.notation import Date, Duration, OneLine, Rate, TimeOfDay, Timeout, Zone

DEFAULT_PATH = Path("token_pipelines.yaml")
ENV_PREFIX = "TOKEN_PIPELINES__"
ONE_DAY = timedelta(days=1)
_SECRET_KEYS = (("smtp", "password"), ("dkim", "private_key"), ("dkim", "ed25519_private_key"))
_DNS_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*", re.IGNORECASE)
_PASSWORD_IN_URL = re.compile(r"://[^:/]*:[^@]*@|[?&](ssl)?passw(or)?d=", re.IGNORECASE)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Source(_Section):
    """Where tokens are read: a database and one SELECT, a preset's name or the path of a .sql file."""

    url: SecretStr
    query: str
    timezone: Zone | None = None
    statement_timeout: Timeout = timedelta(minutes=10)
    lock_timeout: Timeout = timedelta(seconds=10)
    deadline: Timeout = timedelta(minutes=30)
    on_sent: str | None = None
    on_sent_url: SecretStr | None = None


class Ledger(_Section):
    """The Postgres database in whose schema ``token_pipelines`` the ledger lives."""

    url: SecretStr


class Schedule(_Section):
    """When a day's run starts, and how the days are counted."""

    at: TimeOfDay = time(9)
    timezone: Zone = "UTC"
    start_date: Date
    lookback_days: int = Field(default=7, ge=1, le=60)
    grace: Duration = timedelta(hours=2)

    def run_at(self, day: date) -> datetime:
        """The instant of that day's run: the earlier when the clock folds, the later when it skips."""
        return datetime.combine(day, self.at, tzinfo=ZoneInfo(self.timezone)).astimezone(UTC)

    def today(self, now: datetime) -> date:
        """The day, in the configured zone, to which an instant belongs."""
        return now.astimezone(ZoneInfo(self.timezone)).date()

    def reach(self, day: date, now: datetime) -> datetime:
        """How far a run must look so that no threshold falls before the next run has finished."""
        return self.run_at(max(day, self.today(now)) + ONE_DAY) + self.grace


class TierConfig(_Section):
    """A step of urgency: ``before`` the expiry, or ``after`` it and ``within`` how long."""

    name: str
    before: Duration | None = None
    after: Duration | None = None
    within: Duration | None = None

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if re.fullmatch(r"[a-z][a-z0-9_]{0,30}", self.name) is None:
            msg = f"name {self.name!r} must be lower case letters, digits and _, and start with a letter"
            raise ValueError(msg)
        if (self.before is None) == (self.after is None):
            msg = f"tier {self.name} needs either before (like 7d) or after (like 0d)"
            raise ValueError(msg)
        if self.before is not None and (self.before < ONE_DAY or self.within is not None):
            msg = f"tier {self.name}: before must be at least 1d, and goes without within"
            raise ValueError(msg)
        if self.after is not None and (self.within is None or self.within < ONE_DAY):
            msg = f"tier {self.name}: after needs within, at least 1d, so that old tokens are not mourned for ever"
            raise ValueError(msg)
        return self


class Links(_Section):
    """Addresses of pages, https, in which ``{token_id}`` stands for the token's id."""

    renew: OneLine | None = None
    manage: OneLine
    unsubscribe: OneLine | None = None

    @field_validator("renew", "manage", "unsubscribe")
    @classmethod
    def _fields(cls, value: str | None) -> str | None:
        if value is not None:
            if not value.startswith(("https://", "http://")):
                msg = f"{value!r} must start with https://"
                raise ValueError(msg)
            if set(re.findall(r"\{(.*?)\}", value)) - {"token_id", "recipient_id"}:
                msg = f"{value!r} may hold {{token_id}} and {{recipient_id}} and no other field"
                raise ValueError(msg)
        return value


class Email(_Section):
    """Who writes, in whose name, with which templates and links."""

    sender: OneLine = Field(alias="from")
    service: OneLine
    templates: Path = Path("templates")
    links: Links
    reply_to: OneLine | None = None
    bounces: OneLine | None = None
    feedback_id: OneLine | None = None


class Dkim(_Section):
    """The signatures that we put on messages ourselves; without this section the relay signs."""

    domain: OneLine
    selector: OneLine
    key_file: Path | None = None
    private_key: SecretStr | None = None
    ed25519_selector: OneLine | None = None
    ed25519_key_file: Path | None = None
    ed25519_private_key: SecretStr | None = None

    @model_validator(mode="after")
    def _keys(self) -> Self:
        for prefix, wanted in (("", True), ("ed25519_", self.ed25519_selector is not None)):
            given = [getattr(self, f"{prefix}{key}") is not None for key in ("key_file", "private_key")]
            if sum(given) != wanted:
                msg = (
                    f"{prefix}selector goes with one key: {prefix}key_file, or {prefix}private_key in the environment "
                    f"(TOKEN_PIPELINES__DKIM__{prefix.upper()}PRIVATE_KEY)"
                )
                raise ValueError(msg)
        names = [self.domain, self.selector, *([self.ed25519_selector] if self.ed25519_selector is not None else [])]
        if not all(_DNS_NAME.fullmatch(name) for name in names) or self.selector == self.ed25519_selector:
            msg = "domain and selectors are names in the DNS, in ASCII, like example.org and mail2026; no two the same"
            raise ValueError(msg)
        return self


class Smtp(_Section):
    """The relay. ``rate`` is messages a second over all connections; None is no limit."""

    host: OneLine = "localhost"
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["none", "starttls", "tls"] = "starttls"
    username: OneLine | None = None
    password: SecretStr | None = None
    ca_file: Path | None = None
    connections: int = Field(default=4, ge=1, le=64)
    rate: Rate | None = 50.0
    timeout: Timeout = timedelta(seconds=30)
    dot_timeout: Timeout = timedelta(minutes=10)  # RFC 5321, 4.5.3.2.6; giving up sooner leaves doubt
    recycle_after: int = Field(default=100, ge=1)
    reconnect_pauses: tuple[Duration, ...] = (timedelta(seconds=1), timedelta(seconds=3))

    @model_validator(mode="after")
    def _login(self) -> Self:
        if (self.username is None) != (self.password is None):
            msg = (
                "username needs a password in the environment (TOKEN_PIPELINES__SMTP__PASSWORD), "
                "and a password needs a username"
            )
            raise ValueError(msg)
        if self.username is not None and self.security == "none" and self.host not in {"localhost", "127.0.0.1", "::1"}:
            msg = "a password would cross the network in the clear; set security to starttls or tls"
            raise ValueError(msg)
        return self


class Delivery(_Section):
    """How notices leave: for real, to one address, or not at all; and how many may."""

    mode: Mode = Mode.LIVE
    redirect_to: OneLine | None = None
    rollout_percent: float = Field(default=100, ge=0, le=100)
    only_recipients: tuple[str, ...] = ()
    on_unknown: Literal["resend", "hold"] = "resend"
    max_attempts: int = Field(default=3, ge=1)
    retry_pauses: tuple[Duration, ...] = (timedelta(seconds=2), timedelta(seconds=8))
    max_notices: int = Field(default=100_000, ge=1)

    @field_validator("only_recipients", mode="before")
    @classmethod
    def _ids_as_text(cls, value: object) -> object:
        return tuple(str(item) for item in value) if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _redirect(self) -> Self:
        if (self.mode is Mode.REDIRECT) != (self.redirect_to is not None):
            msg = "redirect_to is needed by mode: redirect, and only there"
            raise ValueError(msg)
        return self


class Config(BaseSettings):
    """The whole configuration, checked. ``folder`` is where its file lies."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, hide_input_in_errors=True
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
        tiers = (Tier(name=t.name, before=t.before, after=t.after, within=t.within) for t in self.tiers)
        return tuple(sorted(tiers, key=lambda tier: tier.lead))

    @model_validator(mode="after")
    def _distinct_tiers(self) -> Self:
        names = [tier.name for tier in self.tiers]
        if len(set(names)) < len(names):
            msg = "tiers: two tiers have the same name; each needs its own"
            raise ValueError(msg)
        leads = [tier.lead for tier in self.tier_ladder]
        if len(set(leads)) < len(leads):
            msg = "tiers: two tiers begin at the same instant; drop one of them"
            raise ValueError(msg)
        return self

    @classmethod
    def settings_customise_sources(  # noqa: D102 -- pydantic-settings' hook: the environment comes before the file
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings


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
    for section, key in (("source", "url"), ("source", "on_sent_url"), ("ledger", "url")):
        table = data.get(section)
        url = table.get(key) if isinstance(table, dict) else None
        if isinstance(url, str) and _has_password(url):
            msg = (
                f"{path}: {section}.{key} holds a password, which does not belong in the file; "
                f"set {ENV_PREFIX}{section.upper()}__{key.upper()} in the environment."
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
