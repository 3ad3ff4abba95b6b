"""The messages that are measured: the shipped templates, filled with ordinary facts."""

from datetime import UTC, datetime, timedelta

from bench.servers import repository
from token_pipelines import config
from token_pipelines.envelope import Envelope
from token_pipelines.mail.dkim import Signer
from token_pipelines.mail.message import Serialiser
from token_pipelines.mail.rendering import Renderer
from token_pipelines.model import Recipient, TokenFacts

NOW = datetime(2026, 11, 23, 14, 6, tzinfo=UTC)


class Writer:
    """Renders and serialises notices, each for another recipient about another token."""

    def __init__(self, signer: Signer | None = None) -> None:
        """Load the shipped templates."""
        email = config.Email.model_validate(
            {
                "from": "Example Registry <noreply@example.org>",
                "service": "Example Registry",
                "links": {
                    "renew": "https://example.org/settings/tokens/new?from={token_id}",
                    "manage": "https://example.org/settings/tokens",
                    "unsubscribe": "https://example.org/settings/tokens/reminders?user={recipient_id}",
                },
            }
        )
        self._renderer = Renderer(repository() / "templates", email)
        self._serialiser = Serialiser(email, signer)

    def write(self, number: int) -> Envelope:
        """The message with this number."""
        recipient = Recipient(
            recipient_id=str(10_000 + number), name=f"Person Number {number}", address=f"person{number}@example.org"
        )
        token = TokenFacts(
            token_id=str(70_000 + number),
            name=f"github-actions release {number}",
            scopes=("publish-new", "publish-update"),
            created_at=NOW - timedelta(days=83, minutes=number),
            last_used_at=NOW - timedelta(days=2, minutes=number),
            expires_at=NOW + timedelta(days=6, minutes=number % 1440),
        )
        content = self._renderer.render(recipient, [token], now=NOW)
        message_id = f"<00000000-0000-4000-8000-{number:012d}@example.org>"
        return self._serialiser.envelope(content, recipient, message_id=message_id, at=NOW)


def relay_config(port: int) -> config.Smtp:
    """The shipped settings, without the rate limit."""
    return config.Smtp(host="127.0.0.1", port=port, security="none", rate=None)
