"""How a notice leaves: written as a message, over connections of one kind. Today by email.

Delivery uses ``connect``, and many connections at once; a test send uses ``send``, one message after another.
Neither knows what an email is, or SMTP.
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
        """How fast messages may leave, over all connections together."""
        return self.relay.rate

    def write(self, recipient: Recipient, tokens: Sequence[TokenFacts], *, message_id: str, at: datetime) -> Envelope:
        """The message about these tokens, as of the instant ``at``. The same arguments give the same bytes.

        Raises:
            TemplateError: a template fails on these facts.
            ValueError: the recipient's address is not valid.
        """
        content = self.renderer.render(recipient, tokens, now=at)
        return self.serialiser.envelope(content, recipient, message_id=message_id, at=at)

    def connect(self) -> Lane:
        """A connection that is ready for messages. Blocks; safe from any thread.

        Raises:
            RelayError: one sentence says why not, and the cure.
        """
        return self.relay.connect()

    def send(self, envelope: Envelope) -> Outcome:
        """Send one message when the rate allows, and wait for what becomes of it. `close` ends the connection.

        Raises:
            RelayError: the relay is in trouble, or refuses the sender or by policy; nothing was delivered.
        """
        return self.relay.send(envelope)

    def close(self) -> None:
        """End the connection of `send`."""
        self.relay.close()
