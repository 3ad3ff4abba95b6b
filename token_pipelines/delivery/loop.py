"""The sending loop: one thread, many connections to the relay, one commit a turn.

Each turn hears what was answered, settles with the ledger (all outcomes and all marks, in one commit), writes emails
ahead, and hands them out. No step waits for a relay, and no message's text is said before its mark is committed.
"""

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Final

from token_pipelines.delivery.acceptance import Acceptance
from token_pipelines.delivery.connections import Connection, Connections
from token_pipelines.delivery.emails import Email
from token_pipelines.delivery.outbox import Outbox
from token_pipelines.delivery.recording import Recorder
from token_pipelines.envelope import Envelope
from token_pipelines.errors import RelayError, TokenPipelinesError, whereabouts
from token_pipelines.model import Outcome, Stage, State
from token_pipelines.smtp.answers import Lost, RelayTroubleError
from token_pipelines.smtp.conversation import Step, Wants
from token_pipelines.smtp.relay import TRIES

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.25
"""How often to look for replies whose time is up, and for pauses that are over."""


class SendingLoop:
    """``trouble`` is what stopped it, if anything did. Made anew for each pass over a tier's notices."""

    def __init__(
        self, connections: Connections, outbox: Outbox, recorder: Recorder, acceptance: Acceptance, *, patience: float
    ) -> None:
        """``patience`` is for how many seconds answers are still waited for when the ledger is lost."""
        self.trouble: TokenPipelinesError | None = None
        self.is_stopping = False
        self._connections = connections
        self._outbox = outbox
        self._recorder = recorder
        self._acceptance = acceptance
        self._patience = patience
        self._idle: deque[Connection] = deque()
        self._to_mark: list[Connection] = []
        self._look_at = 0.0
        self._leave_at: float | None = None
        self._has_fault = False

    def run(self) -> None:
        """Send until nothing is left, or until it is stopped and what was on the sockets is answered."""
        while not self._is_done():
            try:
                self._take_turn()
            except TokenPipelinesError as error:
                self.stop(error)
            except Exception as error:  # noqa: BLE001 -- a fault of ours ends the tier, not what is on the sockets
                log.error("Sending met a fault of ours: %s", whereabouts(error))  # noqa: TRY400 -- a traceback may quote an address
                msg = f"Sending stopped by a fault of ours ({whereabouts(error)}); please report it."
                if self._has_fault:
                    raise TokenPipelinesError(msg) from None
                self._has_fault = True
                self.stop(TokenPipelinesError(msg))

    def stop(self, trouble: TokenPipelinesError | None = None) -> None:
        """Begin no further message. A signal's handler may call it."""
        self.trouble = self.trouble or trouble
        self.is_stopping = True
        self._connections.wake()

    def _is_done(self) -> bool:
        if self._connections.open:
            return False
        if self.is_stopping:
            return self._recorder.is_lost or not self._recorder.has_records
        return self._outbox.is_exhausted and not self._recorder.has_records

    def _take_turn(self) -> None:
        self._hear()
        if self.is_stopping:
            self._let_go()
        self._settle()
        if not self.is_stopping:
            self._outbox.fill(lambda: self.is_stopping)
            self._hand_out()

    # Hear

    def _hear(self) -> None:
        """Go on with each conversation whose relay has answered, or has had its time."""
        for connection in self._connections.wait(self._seconds()):
            self._go_on(connection, connection.lane.hear)
        now = monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S
            for connection in list(self._connections.open):
                if connection.lane.waits and now > connection.lane.due:
                    self._go_on(connection, partial(connection.lane.lose, "no answer in time"))
        if self._connections.opening:
            for connection in self._connections.take_opened():
                self._go_on(connection, connection.lane.resume)

    def _seconds(self) -> float:
        """How long there is nothing to do but to wait for a relay or a helper."""
        if self._recorder.has_records and not self._recorder.is_lost:
            return 0.0
        if self.is_stopping:
            return LOOK_EVERY_S
        if self._to_mark or self._outbox.can_fill:
            return 0.0
        return min(LOOK_EVERY_S, self._outbox.seconds_left) if self._idle and len(self._outbox) else LOOK_EVERY_S

    def _go_on(self, connection: Connection, advance: Callable[[], Step | None]) -> None:
        """Let a conversation go on until it waits for its relay, for a mark, or for a message."""
        if connection not in self._connections.open:
            return
        try:
            step = advance()
            while step is not None:
                value = None
                if isinstance(step, Outcome):
                    self._conclude(connection, step)
                elif step is Wants.FOLLOWING:
                    value = self._following(connection)
                else:
                    self._stand(connection, step)
                    break
                step = connection.lane.resume(value)
            self._connections.watch(connection)
        except Lost as lost:
            self._lose(connection, lost)
        except RelayTroubleError as trouble:
            self._meet_trouble(connection, trouble)

    def _stand(self, connection: Connection, wants: Wants) -> None:
        if wants is Wants.MARK:
            self._to_mark.append(connection)
        elif wants is Wants.MESSAGE:
            self._idle.append(connection)
        else:
            self._say_goodbye(connection)

    def _following(self, connection: Connection) -> Envelope | None:
        """The message whose commands go behind this one's dot, if the rate lets it go already.

        None before the relay has accepted anything: it may refuse everything, and is not asked more than necessary.
        """
        may_go = self._acceptance.has_any and not self.is_stopping
        connection.following = self._take() if may_go else None
        return None if connection.following is None else connection.following.envelope

    def _conclude(self, connection: Connection, outcome: Outcome) -> None:
        """Keep what became of a message; the one that was offered behind it is the connection's present one."""
        email, connection.email, connection.following = connection.email, connection.following, None
        connection.is_used = True
        if outcome.state is State.SENT:
            connection.slot.troubles = 0
        if email is not None:
            self._keep(email, outcome)

    def _keep(self, email: Email, outcome: Outcome) -> None:
        record = self._recorder.keep(email, outcome)
        is_excused = self._outbox.follow(outcome)
        self._acceptance.keep(record, outcome, domain=email.domain, begun_in=email.begun_in, is_excused=is_excused)
        if not self.is_stopping and (trouble := self._acceptance.stopped_by) is not None:
            self.stop(trouble)

    # Settle

    def _settle(self) -> None:
        """Record and mark in one commit. Then, and not before, the marked messages are said."""
        connections, self._to_mark = self._to_mark, []
        to_say = [(one, email) for one in connections if (email := self._still_to_say(one)) is not None]
        mine = self._recorder.settle({email.notice_id: email.at for _, email in to_say})
        for _, email in to_say:
            email.is_marked = email.notice_id in mine  # all of them first: saying one may meet a fault of ours
        for connection, email in to_say:
            if email.is_marked:
                self._go_on(connection, partial(connection.lane.resume, email.envelope))
                continue
            log.warning("Notice %s was taken over by another run; it is not sent here.", email.notice_id)
            connection.email = None
            self._hang_up(connection)  # the relay waits for a text: only this ends that

    def _still_to_say(self, connection: Connection) -> Email | None:
        """Its email, if what was read of the tokens is still the present; else the connection is ended."""
        connection.email = connection.email and self._outbox.fresh(connection.email)
        if connection.email is None:
            self._hang_up(connection)
        return connection.email

    # Hand out

    def _hand_out(self) -> None:
        """Give idle connections an email each; end them when none is left; open others where they are missing."""
        while self._idle and (email := self._take()) is not None:
            connection = self._idle.popleft()
            connection.email = email
            self._go_on(connection, partial(connection.lane.resume, email.envelope))
        if self._outbox.is_exhausted:
            while self._idle:
                self._say_goodbye(self._idle.popleft())
            return
        self._connections.open_more(len(self._outbox) - len(self._idle) - self._connections.opening)
        if self._connections.is_hopeless:
            self.stop(self._connections.unconnected)

    def _take(self) -> Email | None:
        email = self._outbox.take()
        if email is not None:
            email.begun_in = self._acceptance.begin()
        return email

    def _let_go(self) -> None:
        """When it stops: end every connection but those whose relay has a message of ours, and owes the answer."""
        if self._recorder.is_lost and self._leave_at is None:
            self._leave_at = monotonic() + self._patience
        is_late = self._leave_at is not None and monotonic() > self._leave_at
        for connection in list(self._connections.open):
            email = connection.email
            owes_answer = email is not None and email.is_marked and connection.lane.waits
            if email is not None and email.is_marked and not owes_answer:
                reason = "the run stopped before its text was said"
                self._recorder.keep(email, Outcome(state=State.DEFERRED, stage=Stage.DATA, reply=reason))
            if connection in self._idle:
                self._say_goodbye(connection)
            elif is_late or not owes_answer:
                self._hang_up(connection)

    # When a connection ends

    def _lose(self, connection: Connection, lost: Lost) -> None:
        """It ended between two messages."""
        slot = connection.slot
        self._end(connection)
        if connection.is_used:
            self._connections.give_back(slot)
        elif not self._connections.pause(slot):
            msg = f"The relay ends connections before they are used ({lost}); look at its log, then run again."
            self._connections.unconnected = RelayError(msg, may_pass=True)

    def _meet_trouble(self, connection: Connection, trouble: RelayTroubleError) -> None:
        """Nothing of its message was delivered: try another connection, put the message off, or stop."""
        email, slot = connection.email, connection.slot
        connection.email = None
        self._end(connection)
        if email is None:
            self._connections.give_back(slot)
            return
        email.tries += 1
        if trouble.try_again and email.tries < TRIES:
            self._outbox.put_back(email)
            self._connections.give_back(slot)
        elif trouble.outcome is not None:
            self._keep(email, trouble.outcome)
            self._connections.give_back(slot)
        else:
            email.tries = 0
            self._outbox.put_back(email)
            if not trouble.may_pass or not self._connections.pause(slot):
                self.stop(trouble)

    def _hang_up(self, connection: Connection) -> None:
        self._end(connection)
        self._connections.give_back(connection.slot)

    def _say_goodbye(self, connection: Connection) -> None:
        self._end(connection, may_quit=True)
        self._connections.give_back(connection.slot)

    def _end(self, connection: Connection, *, may_quit: bool = False) -> None:
        """Close it; the emails on it that were not begun are the next ones."""
        if connection in self._idle:
            self._idle.remove(connection)
        if connection in self._to_mark:
            self._to_mark.remove(connection)
        for email in (connection.following, connection.email):
            if email is not None and not email.is_marked:
                self._outbox.put_back(email)
        connection.email = connection.following = None
        if may_quit:
            self._connections.say_goodbye(connection)
        else:
            self._connections.hang_up(connection)
