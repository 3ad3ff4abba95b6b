"""Emails that are written and wait for a connection. Several are written at a time; one that gets old, again."""

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from token_pipelines.delivery.batches import Batches
from token_pipelines.delivery.emails import Email, is_read_too_long_ago, write, write_again
from token_pipelines.model import Outcome, State
from token_pipelines.pipeline import Pipeline
from token_pipelines.smtp.answers import asks_for_less

WRITTEN_AT_ONCE: Final = 64
"""Emails written in a row when half of them are used up. One by one, between waits, each takes a third longer."""

WRITING_S: Final = 0.5
"""How long emails are written in a row. Then those that are written go out, before they get old, and relays are
heard. Names that somebody has made expensive to write slow the tier down, and do not stop it."""

WRITTEN_SECONDS: Final = 5.0
"""At a low rate: for how many seconds emails are written ahead, since they get old."""


class Outbox:
    """The emails of some batches, in order.

    ``on_fault`` gets each one that cannot be written, ``expect`` the domain of each one that can.
    """

    def __init__(
        self, pipeline: Pipeline, batches: Batches, *, on_fault: Callable[[Email], None], expect: Callable[[str], None]
    ) -> None:
        """Nothing is written yet."""
        self._pipeline = pipeline
        self._batches = batches
        self._on_fault = on_fault
        self._expect = expect
        self._rate = pipeline.channel.rate
        self._written: deque[Email] = deque()
        per_second = self._rate.per_second
        self._at_once = WRITTEN_AT_ONCE
        if per_second is not None:
            self._at_once = max(1, min(WRITTEN_AT_ONCE, int(per_second * WRITTEN_SECONDS)))

    def __len__(self) -> int:
        """How many are written."""
        return len(self._written)

    @property
    def is_exhausted(self) -> bool:
        """Whether none is left, and none will come."""
        return not self._written and self._batches.is_exhausted

    @property
    def can_fill(self) -> bool:
        """Whether `fill` would write some now."""
        return len(self._written) <= self._at_once // 2 and self._batches.is_ready

    @property
    def seconds_left(self) -> float:
        """How long until the rate lets the next one go."""
        return self._rate.seconds_left()

    def fill(self, is_stopping: Callable[[], bool] = lambda: False) -> None:
        """Write emails, where few are left: at least one, and no more once time is up or ``is_stopping`` says so.

        Raises:
            TokenPipelinesError: the source or the ledger is in trouble.
        """
        if not self.can_fill:
            return
        until = monotonic() + WRITING_S
        for _ in range(self._at_once):
            found = self._batches.next()
            if found is None:
                break
            resolved, read_at = found
            if is_read_too_long_ago(read_at, self._pipeline.clock()):
                self._batches.read_again([resolved])
                continue
            email = write(self._pipeline, resolved, read_at=read_at)
            if email.envelope is None:
                self._on_fault(email)
            else:
                self._written.append(email)
                self._expect(email.domain)
            if is_stopping() or monotonic() > until:
                break

    def take(self) -> Email | None:
        """The next email, if the rate lets it go now."""
        while self._written:
            email = self.fresh(self._written[0])
            if email is None:
                self._written.popleft()
                continue
            self._written[0] = email
            return self._written.popleft() if self._rate.take_at_once() else None
        return None

    def fresh(self, email: Email) -> Email | None:
        """The email, written again if it is old. None where its tokens are read again, or it cannot be written."""
        now = self._pipeline.clock()
        if email.must_be_read_again(now):
            self._batches.read_again([email.resolved])
            return None
        if not email.must_be_written_again(now):
            return email
        email = write_again(self._pipeline, email)
        if email.envelope is None:
            self._on_fault(email)
            return None
        return email

    def follow(self, outcome: Outcome) -> bool:
        """Send more slowly if the relay asks for it, and faster again while it accepts.

        Returns:
            Whether it asks for less, and is going to get less.
        """
        if outcome.state is State.SENT:
            self._rate.speed_up()
        elif asks_for_less(outcome):
            is_lowest = self._rate.is_lowest
            self._rate.slow_down()
            return not is_lowest
        return False

    def put_back(self, email: Email) -> None:
        """This one was not begun: it is the next."""
        self._written.appendleft(email)
