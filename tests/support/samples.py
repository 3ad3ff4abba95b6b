"""Every email that we ship, on made-up tokens, as the preview shows it."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from token_pipelines import shipped
from token_pipelines.config import Config, load
from token_pipelines.mail.rendering import Renderer
from token_pipelines.operations.preview.samples import Sample, render_all

NOW = datetime(2026, 11, 23, 14, 6, tzinfo=UTC)


def shipped_config() -> Config:
    """The config that we ship: the demo's."""
    return load(shipped.path("token_pipelines.yaml"))


@cache
def all_samples() -> tuple[Sample, ...]:
    """Render them, with every link set."""
    email = shipped_config().email
    links = email.links.model_copy(update={"unsubscribe": "https://example.org/unsubscribe/{recipient_id}"})
    config = shipped_config().model_copy(update={"email": email.model_copy(update={"links": links})})
    return tuple(render_all(config, Renderer(Path(shipped.path("templates")), config.email), now=NOW))
