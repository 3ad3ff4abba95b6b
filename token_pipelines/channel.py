"""How a notice is sent: written as a message, over connections of one kind. Today by email.

Delivery uses ``connect``, with many connections at once; a test send uses ``send``, one message after another.
Neither of them depends on email or SMTP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from token_pipelines.envelope import Envelope
from token_pipelines.mail.message import Serialiser
from token_pipelines.mail.rendering import Renderer
from token_pipelines.model import Outcome, Recipient, TokenFacts
from token_pipelines.smtp.lane import Lane
from token_pipelines.smtp.rate import RateLimit
from token_pipelines.smtp.relay import Relay


@dataclass(frozen=True, kw_only=True, slots=True)
class Channel:
    """Email. A channel of another kind has the same methods; its connections have those of `Lane`."""

    renderer: Renderer
    serialiser: Serialiser
    relay: Relay

    @property
    def rate(self) -> RateLimit:
        """How fast messages may be sent, over all connections together."""
        return self.relay.rate

    def write(self, recipient: Recipient, tokens: Sequence[TokenFacts], *, message_id: str, at: datetime) -> Envelope:
        """Write the message about these tokens, as of ``at``. The same arguments give the same bytes.

        Raises:
            TemplateError: a template fails with these facts.
            ValueError: the recipient's address is not valid.
        """
        content = self.renderer.render(recipient, tokens, now=at)
        return self.serialiser.envelope(content, recipient, message_id=message_id, at=at)

    def connect(self) -> Lane:
        """Open a connection that is ready for messages. Blocks; safe from any thread.

        Raises:
            RelayError: the connection failed; the message says why, and the cure.
        """
        return self.relay.connect()

    def explain(self, outcome: Outcome) -> str:
        """What the relay did to a message, in a sentence with the cure."""
        return self.relay.explain(outcome)

    def send(self, envelope: Envelope) -> Outcome:
        """Send one message when the rate allows, and wait for its outcome. `close` ends the connection.

        Raises:
            RelayError: the connection was lost, or the relay's answer makes no sense; nothing was delivered.
        """
        return self.relay.send(envelope)

    def close(self) -> None:
        """End the connection of `send`."""
        self.relay.close()
