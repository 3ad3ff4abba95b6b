"""The parts of one pipeline, each built from the configuration when it is first used."""

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final

from token_pipelines.channel import Channel
from token_pipelines.clock import Clock, system_clock
from token_pipelines.config import SOURCE_URL, Config, Email
from token_pipelines.database import DatabaseUrl
from token_pipelines.ledger.ledger import Ledger
from token_pipelines.ledger.ownership import KnownRun, Owner, source_key
from token_pipelines.ledger.tables import schema_of
from token_pipelines.mail import links
from token_pipelines.mail.dkim import Signer
from token_pipelines.mail.message import Serialiser
from token_pipelines.mail.rendering import Renderer
from token_pipelines.model import Mode
from token_pipelines.policy import Policy
from token_pipelines.smtp.relay import Relay
from token_pipelines.source.on_sent import OnSentStatement
from token_pipelines.source.source import Source

LEFTOVER_MARGIN: Final = timedelta(days=2)
"""Added to the longest tier to find the oldest notice that may still wait: a run looks ahead by more than a day."""


class Pipeline:
    """One pipeline. A command builds only the parts that it uses: ``source check`` needs no template.

    Building a part opens no connection. To replace a part, assign another one.
    """

    def __init__(self, config: Config, clock: Clock = system_clock) -> None:
        """Build nothing yet; `check` builds every part."""
        self.config = config
        self.clock = clock

    def check(self) -> None:
        """Build every part, so that a fault in the config is found before a run starts.

        Raises:
            ConfigError: if the query, a template, a link, a URL or the sender's address is wrong.
        """
        _ = (self.email, self.policy, self.source, self.ledger, self.channel, self.on_sent)

    @cached_property
    def policy(self) -> Policy:
        """Which tokens are due."""
        delivery = self.config.delivery
        return Policy(
            tiers=self.config.tier_ladder,
            grace=self.config.schedule.grace,
            rollout_percent=delivery.rollout_percent,
            only_recipients=delivery.only_recipients,
        )

    @cached_property
    def source(self) -> Source:
        """The operator's tokens.

        Raises:
            ConfigError: if the URL or the query is wrong.
        """
        return Source(self.config.source)

    @cached_property
    def on_sent(self) -> OnSentStatement | None:
        """The statement that records in the operator's database what was sent; None if the config has none.

        Raises:
            ConfigError: if the URL or the statement is wrong.
        """
        return None if self.config.source.on_sent is None else OnSentStatement(self.config.source)

    @cached_property
    def ledger(self) -> Ledger:
        """What was planned and sent.

        Raises:
            ConfigError: if the URL is wrong.
        """
        return Ledger.of(self.config)

    @cached_property
    def email(self) -> Email:
        """The config's section `email`; in mode ``redirect`` without the link to unsubscribe.

        With it, the person who gets the redirected email could unsubscribe the user with one click. Some mail programs
        follow that link by themselves.

        Raises:
            ConfigError: if a link is wrong, including the one to unsubscribe.
        """
        links.check(self.config.email.links)
        if self.config.delivery.mode is not Mode.REDIRECT:
            return self.config.email
        kept = self.config.email.links.model_copy(update={"unsubscribe": None})
        return self.config.email.model_copy(update={"links": kept})

    @cached_property
    def renderer(self) -> Renderer:
        """Turns a recipient's tokens into the content of an email.

        Raises:
            TemplateError: if a template is wrong.
        """
        return Renderer(self.email.templates, self.email)

    @cached_property
    def serialiser(self) -> Serialiser:
        """Turns content into a message, signed if the config has keys.

        Raises:
            ConfigError: if the sender's address or a key is wrong.
        """
        signer = Signer(self.config.dkim) if self.config.dkim else None
        return Serialiser(self.email, signer, tag=self._tag)

    def _tag(self, notice_id: str) -> str:
        """A notice's tag. It needs the ledger, but only when a notice is written: a preview needs none."""
        return self.ledger.bounces.tag(notice_id)

    @cached_property
    def relay(self) -> Relay:
        """The mail server that takes our messages."""
        return Relay(self.config.smtp)

    @cached_property
    def channel(self) -> Channel:
        """How notices are sent.

        Raises:
            ConfigError: if a template, the sender's address or a key is wrong.
        """
        return Channel(renderer=self.renderer, serialiser=self.serialiser, relay=self.relay)

    def close(self) -> None:
        """Close the ledger's connections, if it was used."""
        if "ledger" in vars(self):
            self.ledger.close()

    def address_hashes(self, token_ids: Collection[str]) -> dict[tuple[str, str], tuple[bytes, ...]]:
        """The keyed hashes of each recipient's present address, one for each known key, by (token_id, recipient_id).

        Reads these tokens again; a token that is gone is missing. No address leaves this function.
        """
        tokens = self.source.resolve(token_ids)
        rows = tokens[["token_id", "recipient_id", "email"]].itertuples(index=False, name=None)
        return {
            (token_id, recipient_id): self.ledger.hash_address.known(email if isinstance(email, str) else "")
            for token_id, recipient_id, email in rows
        }

    def check_ledger(self, *, newest: KnownRun | None = None, new_ledger: bool = False) -> None:
        """Stop before a ledger that is empty or older by mistake makes everybody be told once more.

        Args:
            newest: the newest complete run that an orchestrator knows of.
            new_ledger: a person says that the ledger is meant as it is.

        Raises:
            LedgerError: with the ways on.
        """
        url = DatabaseUrl.read(self.config.source.url.get_secret_value(), SOURCE_URL)
        mine = Owner(
            option=self.config.option,
            source=source_key(url.parsed),
            schemas=frozenset(map(schema_of, self.config.names)),
        )
        self.ledger.ownership.check(mine, newest=newest, new_ledger=new_ledger, at=system_clock())

    def leftovers_since(self, now: datetime) -> datetime:
        """The earliest time at which a notice that still waits can have been planned.

        The tiers of notices that were planned earlier are over.
        """
        return now - max(tier.span for tier in self.policy.tiers) - self.policy.grace - LEFTOVER_MARGIN
