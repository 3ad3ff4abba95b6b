"""The relay as configured: connections to it, and how fast messages may be sent over all of them."""

import select
import time
from collections.abc import Callable
from typing import Final

from token_pipelines import config
from token_pipelines.envelope import Envelope
from token_pipelines.errors import RelayError
from token_pipelines.model import Outcome
from token_pipelines.smtp.answers import Lost, RelayTroubleError, explain
from token_pipelines.smtp.connecting import Connector
from token_pipelines.smtp.conversation import Step, Wants
from token_pipelines.smtp.lane import Lane
from token_pipelines.smtp.rate import RateLimit

TRIES: Final = 2
"""On how many connections a message is tried before it is marked: an idle one may be stale, so a new one is tried."""


class Relay:
    """Opens connections. `send` uses its own connection, for callers with a few messages that may block."""

    def __init__(self, smtp: config.Smtp) -> None:
        """Read the certificates.

        Raises:
            ConfigError: ``smtp.ca_file`` cannot be used.
        """
        self._connector = Connector(smtp)
        self._smtp = smtp
        self._lane: Lane | None = None
        self.rate = RateLimit(smtp.rate)

    def connect(self) -> Lane:
        """A connection that is logged in and ready. Blocks; safe from any thread.

        Raises:
            RelayError: it could not be opened; the message says why, and the cure.
        """
        session = self._connector.open()
        try:
            return Lane(
                session,
                name=self._connector.name,
                command_timeout=self._smtp.command_timeout.total_seconds(),
                dot_timeout=self._smtp.dot_timeout.total_seconds(),
                recycle_after=self._smtp.recycle_after,
            )
        except Lost as lost:
            msg = f"The relay {self._connector.name} is in trouble: {lost}; look at its log, then run again."
            raise RelayError(msg, may_pass=True) from None

    def explain(self, outcome: Outcome) -> str:
        """What this relay did to a message, in a sentence with the cure."""
        return explain(self._connector.name, outcome)

    def send(self, envelope: Envelope) -> Outcome:
        """Send one message when the rate allows, and wait for its outcome.

        Raises:
            RelayError: the connection was lost, or the relay's answer makes no sense; nothing was delivered.
        """
        while not self.rate.take_at_once():
            time.sleep(self.rate.seconds_left())
        for attempt in range(1, TRIES + 1):
            try:
                return self._send(envelope)
            except RelayTroubleError as trouble:
                self._hang_up()
                if not trouble.try_again or attempt == TRIES:
                    raise
        raise AssertionError

    def _send(self, envelope: Envelope) -> Outcome:
        if self._lane is None:
            self._lane = self.connect()
            self._lane.resume()
        lane, outcome = self._lane, None
        step = _awaited(lane, lambda: lane.resume(envelope))
        try:
            while step is not Wants.MESSAGE and step is not Wants.END:
                if isinstance(step, Outcome):
                    outcome = step
                value = envelope if step is Wants.MARK else None
                step = _awaited(lane, lambda: lane.resume(value))  # noqa: B023 -- called at once
            if step is Wants.END:
                self.close()
        except Lost:
            self._hang_up()
        assert outcome is not None  # noqa: S101 -- a message ends with an outcome, or raises
        return outcome

    def close(self) -> None:
        """Send QUIT on the connection of `send`, without waiting long for the answer. A later `send` opens another."""
        if self._lane is not None:
            self._lane.quit()
        self._lane = None

    def _hang_up(self) -> None:
        if self._lane is not None:
            self._lane.close()
        self._lane = None


def _awaited(lane: Lane, go_on: Callable[[], Step | None]) -> Step:
    """Wait until the conversation needs something from us."""
    step = go_on()
    while step is None:
        to_write = [lane] if lane.has_unsaid else []
        ready = select.select([lane], to_write, [], max(0.0, lane.due - time.monotonic()))
        step = lane.hear() if any(ready) else lane.lose("no answer in time")
    return step
