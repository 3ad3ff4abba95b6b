"""Sends samples through the configured relay to one address: do they arrive, and how does a mail program show them?"""

import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime

from token_pipelines.config import Config
from token_pipelines.errors import RelayError
from token_pipelines.model import State
from token_pipelines.operations.preview.samples import Sample, render_all
from token_pipelines.pipeline import Pipeline


def send(config: Config, address: str, *, now: datetime) -> int:
    """Send a choice of the samples to ``address``, whatever ``delivery.mode`` says; return how many.

    Raises:
        ConfigError: if a template or the sender is wrong.
        RelayError: if the relay cannot be reached, or does not accept a message.
    """
    pipeline = Pipeline(config)
    count = 0
    with closing(pipeline.channel) as channel:
        for count, sample in enumerate(_chosen(render_all(config, pipeline.renderer, now=now)), start=1):
            recipient = replace(sample.recipient, address=address)
            # Not the form of a notice's id: a delivery report about a sample is about no notice.
            message_id = f"<sample-{uuid.uuid4().hex}@{pipeline.serialiser.domain}>"
            outcome = channel.send(channel.write(recipient, sample.tokens, message_id=message_id, at=now))
            if outcome.state is not State.SENT:
                msg = (
                    f"The relay did not accept sample {count} ({sample.key}): {outcome.reply or outcome.state}; "
                    "check the address, and the relay's log."
                )
                raise RelayError(msg)
    return count


def _chosen(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Every kind of sample in the most urgent tier, and one plain email in each other tier and language."""
    first_tier = None
    for sample in samples:
        first_tier = first_tier or sample.tier
        if sample.kind == "one" or (sample.tier == first_tier and not sample.locale):
            yield sample
