"""What a connection to the operator's database is for, and its limits. Each database sets them in its own way."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Self

from token_pipelines.config import Source as SourceConfig

CONNECT_TIMEOUT_S: Final = 10


@dataclass(frozen=True, kw_only=True)
class Session:
    """``patience``: how long to wait for an answer of a driver that has such a limit."""

    application_name: str
    read_only: bool
    statement_timeout: timedelta
    lock_timeout: timedelta
    patience: timedelta

    @classmethod
    def to_read(cls, config: SourceConfig) -> Self:
        """A session that reads tokens."""
        return cls(
            application_name="token-pipelines source",
            read_only=True,
            statement_timeout=config.statement_timeout,
            lock_timeout=config.lock_timeout,
            patience=config.deadline,
        )

    @classmethod
    def to_write(cls, config: SourceConfig) -> Self:
        """A session that runs source.on_sent."""
        return cls(
            application_name="token-pipelines on_sent",
            read_only=False,
            statement_timeout=config.statement_timeout,
            lock_timeout=config.lock_timeout,
            patience=config.statement_timeout,
        )
