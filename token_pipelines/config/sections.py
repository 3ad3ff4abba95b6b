"""The sections of `token_pipelines.yaml`, typed: each key's kind, its default, and what goes together.

Paths are absolute once they are validated (`origin`). Nothing here reads a file, the environment or a server.
"""

import re
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Final, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from token_pipelines.config.origin import AbsolutePath, SecretUrl, SqlOrName
from token_pipelines.config.value_types import Address, Date, Duration, Host, OneLine, Rate, TimeOfDay, Timeout, Zone
from token_pipelines.errors import shown
from token_pipelines.model import Mode

ONE_DAY = timedelta(days=1)
ADDRESS_KEY_CHARACTERS: Final = 32
_DNS_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9])?)*", re.IGNORECASE)


SOURCE_URL: Final = "source.url"
ON_SENT_URL: Final = "source.on_sent_url"
LEDGER_URL: Final = "ledger.url"
"""The keys of the databases' URLs, by which messages name a database."""


class Section(BaseModel):
    """A table of keys; an unknown one is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Source(Section):
    """Where tokens are read: a database and one SELECT, a preset's name or the path of a .sql file."""

    url: SecretUrl
    query: SqlOrName
    timezone: Zone | None = None
    statement_timeout: Timeout = timedelta(minutes=10)
    lock_timeout: Timeout = timedelta(seconds=10)
    deadline: Timeout = timedelta(minutes=30)
    max_lag: Duration | None = None
    on_sent: SqlOrName | None = None
    on_sent_url: SecretUrl | None = None


class Ledger(Section):
    """The Postgres database in whose schema ``token_pipelines`` the ledger lives."""

    url: SecretStr
    address_key: SecretStr | None = None

    @field_validator("address_key")
    @classmethod
    def _keys(cls, value: SecretStr | None) -> SecretStr | None:
        keys = [] if value is None else value.get_secret_value().split()
        if value is not None and (not keys or any(len(key) < ADDRESS_KEY_CHARACTERS for key in keys)):
            msg = (
                f"each key needs at least {ADDRESS_KEY_CHARACTERS} characters, so that it cannot be guessed; make one "
                "with `openssl rand -base64 32`. Older keys follow it, after blanks"
            )
            raise ValueError(msg)
        return value

    @property
    def address_keys(self) -> tuple[bytes, ...]:
        """The keys of address hashes, the present one first. None: the ledger's own."""
        return () if self.address_key is None else tuple(self.address_key.get_secret_value().encode().split())


class Schedule(Section):
    """When a day's run starts, and in which time zone days begin."""

    at: TimeOfDay = time(9)
    timezone: Zone = Field(default="UTC", validate_default=True)  # the zones of recipients are from the same files
    start_date: Date
    lookback_days: int = Field(default=7, ge=1, le=60)
    grace: Duration = timedelta(hours=2)

    def run_at(self, day: date) -> datetime:
        """The instant of that day's run: the earlier one if the time occurs twice, the later one if it is skipped."""
        return datetime.combine(day, self.at, tzinfo=ZoneInfo(self.timezone)).astimezone(UTC)

    def last_run_at(self, now: datetime) -> datetime:
        """The latest instant at which a scheduled run was to start."""
        today = self.run_at(self.today(now))
        return today if today <= now else self.run_at(self.today(now) - ONE_DAY)

    def today(self, now: datetime) -> date:
        """The day of an instant in the configured zone."""
        return now.astimezone(ZoneInfo(self.timezone)).date()

    def reach(self, day: date, now: datetime) -> datetime:
        """How far a run must look so that no threshold falls before the next run has finished."""
        return self.run_at(max(day, self.today(now)) + ONE_DAY) + self.grace


class Links(Section):
    """URLs of pages. In each, ``{token_id}`` stands for the token's id and ``{recipient_id}`` for the recipient's."""

    renew: OneLine | None = None
    manage: OneLine
    unsubscribe: OneLine | None = None

    @field_validator("renew", "manage", "unsubscribe")
    @classmethod
    def _fields(cls, value: str | None) -> str | None:
        if value is not None:
            if not value.startswith(("https://", "http://")):
                msg = f"{shown(value)} must start with https://"
                raise ValueError(msg)
            if set(re.findall(r"\{(.*?)\}", value)) - {"token_id", "recipient_id"}:
                msg = f"{shown(value)} may hold {{token_id}} and {{recipient_id}} and no other field"
                raise ValueError(msg)
        return value


class Email(Section):
    """The sender, the service's name, the templates and the links of the emails."""

    sender: OneLine = Field(alias="from")
    service: OneLine
    breaks: OneLine | None = None
    templates: AbsolutePath = Field(default=Path("templates"), validate_default=True)
    links: Links
    reply_to: OneLine | None = None
    bounces: OneLine | None = None
    feedback_id: OneLine | None = None


class Dkim(Section):
    """The keys with which we sign messages. Without this section the relay must sign them."""

    domain: OneLine
    selector: OneLine
    key_file: AbsolutePath | None = None
    private_key: SecretStr | None = None
    ed25519_selector: OneLine | None = None
    ed25519_key_file: AbsolutePath | None = None
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


class Smtp(Section):
    """The relay. ``rate`` is in messages a second over all connections; None means no limit."""

    host: Host = "localhost"
    port: int = Field(default=587, ge=1, le=65535)
    security: Literal["none", "starttls", "tls"] = "starttls"
    username: OneLine | None = None
    password: SecretStr | None = None
    ca_file: AbsolutePath | None = None
    connections: int = Field(default=8, ge=1, le=64)
    rate: Rate | None = 50.0
    timeout: Timeout = timedelta(seconds=30)
    command_timeout: Timeout = timedelta(minutes=5)  # RFC 5321, 4.5.3.2; at RCPT a relay may first ask another relay
    dot_timeout: Timeout = timedelta(minutes=10)  # RFC 5321, 4.5.3.2.6; giving up sooner leaves the outcome unknown
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


class Delivery(Section):
    """Whether notices go to their recipients, to one address or nowhere; how many may; what is tried again."""

    mode: Mode = Mode.LIVE
    redirect_to: Address | None = None
    rollout_percent: float = Field(default=100, ge=0, le=100)
    only_recipients: tuple[str, ...] = ()
    on_unknown: Literal["resend", "hold"] = "resend"
    max_attempts: int = Field(default=3, ge=1)
    retry_pauses: tuple[Duration, ...] = (timedelta(seconds=2), timedelta(seconds=8))
    deadline: Duration = timedelta(hours=1)
    max_notices: int = Field(default=100_000, ge=1)
    max_growth: float | None = Field(default=10, ge=1, allow_inf_nan=False)

    @field_validator("only_recipients", mode="before")
    @classmethod
    def _ids_as_text(cls, value: object) -> object:
        if not isinstance(value, list | tuple):
            return value
        if not all(isinstance(item, str | int) and not isinstance(item, bool) for item in value):
            msg = "must be ids; write one that is not a whole number in quotes"
            raise ValueError(msg)
        return tuple(str(item) for item in value)

    @model_validator(mode="after")
    def _redirect(self) -> Self:
        if (self.mode is Mode.REDIRECT) != (self.redirect_to is not None):
            msg = "redirect_to is needed by mode: redirect, and only there"
            raise ValueError(msg)
        return self
