"""Sends samples through the configured relay to one address: do they arrive, and how do mail programs show them?"""

import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime

from token_pipelines.addresses import valid_address
from token_pipelines.config import Config
from token_pipelines.errors import ConfigError, RelayError
from token_pipelines.model import State
from token_pipelines.operations.preview.samples import Sample, render_all
from token_pipelines.pipeline import Pipeline


def check(address: str) -> None:
    """Refuse text that is not one address.

    Raises:
        ConfigError: it is not an address.
    """
    if not valid_address(address):
        msg = "--send-to needs one address, like you@example.org."
        raise ConfigError(msg)


def send(config: Config, address: str, *, now: datetime) -> int:
    """Send some of the samples to ``address``, whatever ``delivery.mode`` says. Returns how many.

    Raises:
        ConfigError: the address, a template or the sender is wrong.
        RelayError: the relay cannot be reached, or did not take a message.
    """
    check(address)
    pipeline = Pipeline(config)
    count = 0
    with closing(pipeline.channel) as channel:
        for count, sample in enumerate(_chosen(render_all(config, pipeline.renderer, now=now)), start=1):
            recipient = replace(sample.recipient, address=address)
            message_id = f"<{uuid.uuid4()}@{pipeline.serialiser.domain}>"
            outcome = channel.send(channel.write(recipient, sample.tokens, message_id=message_id, at=now))
            if outcome.state is not State.SENT:
                msg = (
                    f"The relay did not take sample {count} ({sample.key}): {outcome.reply or outcome.state}; "
                    "check the address, and the relay's log."
                )
                raise RelayError(msg)
    return count


def _chosen(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Every kind in the most urgent tier and default language; one plain email for each other tier and language."""
    first_tier = None
    for sample in samples:
        first_tier = first_tier or sample.tier
        if sample.kind == "one" or (sample.tier == first_tier and not sample.locale):
            yield sample
