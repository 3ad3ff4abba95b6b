"""The parts that a pipeline is made of, built from its configuration and handed to the two use cases."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from token_pipelines.channel import Channel
from token_pipelines.config import Config, Email
from token_pipelines.ledger.ledger import Ledger
from token_pipelines.mail import links
from token_pipelines.mail.dkim import Signer
from token_pipelines.mail.message import Serialiser
from token_pipelines.mail.rendering import Renderer
from token_pipelines.model import Mode
from token_pipelines.policy import Policy
from token_pipelines.smtp.relay import Relay
from token_pipelines.source.on_sent import OnSentStatement
from token_pipelines.source.source import Source

Clock = Callable[[], datetime]

LEFTOVER_MARGIN: Final = timedelta(days=2)
"""Added to the longest tier when asking since when a notice may still wait: how far ahead a run looks."""


def system_clock() -> datetime:
    """The present instant, in UTC."""
    return datetime.now(UTC)


def clock_starting_at(now: datetime) -> Clock:
    """A clock that shows ``now`` when it is first read and goes on from there: for rehearsals."""
    first_read: list[float] = []

    def clock() -> datetime:
        if not first_read:
            first_read.append(time.monotonic())
            return now
        return now + timedelta(seconds=time.monotonic() - first_read[0])

    return clock


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """One pipeline's parts. Nothing in here has opened a connection yet."""

    config: Config
    clock: Clock
    policy: Policy
    source: Source
    ledger: Ledger
    renderer: Renderer
    serialiser: Serialiser
    relay: Relay
    write_back: OnSentStatement | None

    @property
    def channel(self) -> Channel:
        """How notices leave."""
        return Channel(renderer=self.renderer, serialiser=self.serialiser, relay=self.relay)

    def leftovers_since(self, now: datetime) -> datetime:
        """Since when a notice that still waits can have been planned: older ones belong to tiers that are long over."""
        return now - max(tier.span for tier in self.policy.tiers) - self.policy.grace - LEFTOVER_MARGIN


def assemble(config: Config, clock: Clock = system_clock) -> Pipeline:
    """Build the parts.

    Raises:
        ConfigError: if the query, a template, a link, a URL or the sender's address is wrong.
    """
    delivery = config.delivery
    email = _as_sent(config)
    return Pipeline(
        config=config,
        clock=clock,
        policy=Policy(
            tiers=config.tier_ladder,
            grace=config.schedule.grace,
            rollout_percent=delivery.rollout_percent,
            only_recipients=delivery.only_recipients,
        ),
        source=Source(config.source, config.folder),
        ledger=Ledger.of(config),
        renderer=Renderer(config.folder / email.templates, email),
        serialiser=Serialiser(email, Signer(config.dkim, config.folder) if config.dkim else None),
        relay=Relay(config.smtp.model_copy(update={"ca_file": _below(config.folder, config.smtp.ca_file)})),
        write_back=None if config.source.on_sent is None else OnSentStatement(config.source, config.folder),
    )


def _as_sent(config: Config) -> Email:
    """The section, without the link to unsubscribe where the operator gets what is written to others.

    The link is the recipient's: one click, which some mail programs make themselves, would silence a user who has seen
    nothing.
    """
    links.check(config.email.links)  # the link that is left out, too
    if config.delivery.mode is not Mode.REDIRECT:
        return config.email
    kept = config.email.links.model_copy(update={"unsubscribe": None})
    return config.email.model_copy(update={"links": kept})


def _below(folder: Path, path: Path | None) -> Path | None:
    return path and folder / path
