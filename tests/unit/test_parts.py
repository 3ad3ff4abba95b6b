"""The parts of a pipeline, put together from its config; none of them has opened a connection."""

from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default

import pytest
from pydantic import SecretStr
from support.samples import shipped_config

from token_pipelines.config import Config
from token_pipelines.envelope import Envelope
from token_pipelines.errors import ConfigError
from token_pipelines.model import Mode, Recipient, TokenFacts
from token_pipelines.pipeline import Pipeline

NOW = datetime(2026, 11, 23, 14, 6, tzinfo=UTC)
UNSUBSCRIBE = "https://example.org/unsubscribe/{recipient_id}"


def config(mode: Mode, unsubscribe: str = UNSUBSCRIBE) -> Config:
    plain = shipped_config()
    links = plain.email.links.model_copy(update={"unsubscribe": unsubscribe})
    delivery = plain.delivery.model_copy(
        update={"mode": mode, "redirect_to": "ops@example.org" if mode is Mode.REDIRECT else None}
    )
    nowhere = {"url": SecretStr("postgresql://reader@localhost/nothing")}
    return plain.model_copy(
        update={
            "source": plain.source.model_copy(update=nowhere),
            "ledger": plain.ledger.model_copy(update=nowhere),
            "email": plain.email.model_copy(update={"links": links}),
            "delivery": delivery,
        }
    )


def written(mode: Mode) -> Envelope:
    """What a pipeline in this mode writes to the recipient 7, of one token."""
    parts = Pipeline(config(mode))
    token = TokenFacts(
        token_id="tok_1",
        name="ci",
        scopes=(),
        created_at=NOW - timedelta(days=90),
        last_used_at=None,
        expires_at=NOW + timedelta(days=1),
    )
    seven = Recipient(recipient_id="7", name="Ada", address="ops@example.org")
    content = parts.renderer.render(seven, [token], now=NOW)
    return parts.serialiser.envelope(content, seven, message_id="<1@example.org>", at=NOW)


@pytest.mark.parametrize("mode", [Mode.LIVE, Mode.REDIRECT])
def test_redirect_offers_no_unsubscribing(mode: Mode) -> None:
    """One click of the operator's, or of their mail program's, must not silence the user whose email this would be."""
    message = message_from_bytes(written(mode).data, policy=default)
    offered = {name for name in message if name.startswith("List-")}
    assert offered == ({"List-Unsubscribe", "List-Unsubscribe-Post"} if mode is Mode.LIVE else set())
    for part in message.iter_parts():
        assert ("unsubscribe" in part.get_content().lower()) == (mode is Mode.LIVE)
        assert "new?from=tok_1" in part.get_content()


@pytest.mark.parametrize("mode", list(Mode))
def test_check_refuses_a_wrong_unsubscribe_link(mode: Mode) -> None:
    """A rehearsal finds it, too."""
    with pytest.raises(ConfigError, match=r"^email\.links\.unsubscribe cannot hold {token_id}"):
        Pipeline(config(mode, "https://example.org/{token_id}")).check()
