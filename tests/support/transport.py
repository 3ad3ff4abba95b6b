"""One message to a relay on loopback, and what became of it."""

from contextlib import closing

from support.smtpd import Action, Script, Smtpd, times
from token_pipelines.config import Smtp
from token_pipelines.envelope import Envelope
from token_pipelines.model import Outcome, State
from token_pipelines.smtp.relay import Relay

DATA = b"Subject: hello\r\n\r\n.dot\r\n..two\r\nnothing\r\n.\r\nafter a lone dot\r\n"
ENVELOPE = Envelope(sender="noreply@example.org", recipient="ada@example.org", data=DATA)
UP_TO_DOT = ("mail", "rcpt", "data")


def smtp(port: int, **changes: object) -> Smtp:
    ordinary = {"host": "127.0.0.1", "port": port, "security": "none", "rate": None}
    return Smtp.model_validate({**ordinary, "timeout": "5s", "command_timeout": "5s", **changes})


def connect(server: Smtpd, **changes: object) -> "closing[Relay]":
    """A relay whose connection is ended with the block."""
    return closing(Relay(smtp(server.port, **changes)))


def send(script: Script | None = None, envelope: Envelope = ENVELOPE, **changes: object) -> tuple[Outcome, Smtpd]:
    """The outcome of one message, after which the same connection must still deliver another."""
    with Smtpd(script=script) as server, connect(server, **changes) as connection:
        outcome = connection.send(envelope)
        after = Envelope(sender="noreply@example.org", recipient="next@example.org", data=b"next\r\n")
        assert connection.send(after).state is State.SENT
    assert server.accepted[-1].recipient == "next@example.org"
    return outcome, server


def answers(stage: str, code: int, text: str) -> Script:
    """Answer so at that stage, once: each test's second message goes through."""
    return times(1, stage, Action(code=code, text=text))
