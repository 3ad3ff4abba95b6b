"""What a relay's answer means for one message, and for all of them. Only this package interprets numeric codes.

A problem of one recipient is an `Outcome`. A problem of the relay or the sender is a `RelayTroubleError`: the message
was not delivered, and the next one would probably fail too.
"""

from typing import Final

from token_pipelines.errors import RelayError
from token_pipelines.model import DEAD_ADDRESS, Outcome, Stage, State
from token_pipelines.smtp.session import Reply

_SENDER_AT_FAULT: Final = frozenset({"5.1.7", "5.1.8"})  # with a wrong From, these come for every recipient
_POLICY: Final = "5.7."
_RECIPIENT_NAMED: Final = frozenset({Stage.RCPT, Stage.DATA, Stage.DOT})


class RelayTroubleError(RelayError):
    """A problem of the relay or the sender. The message was not delivered, and the connection cannot be used any more.

    Attributes:
        outcome: the attempt's outcome if only this recipient has the problem; None if no recipient was named yet.
        try_again: whether perhaps only this connection has the problem, so that another one is worth a try.
        may_quit: whether QUIT may be sent. A relay that waits for a message would take QUIT as its text.
    """

    def __init__(
        self,
        message: str,
        *,
        outcome: Outcome | None = None,
        may_pass: bool,
        try_again: bool = False,
        may_quit: bool = False,
    ) -> None:
        """Take the message for the operator, and what follows from the problem."""
        super().__init__(message, may_pass=may_pass)
        self.outcome = outcome
        self.try_again = try_again
        self.may_quit = may_quit


class Lost(Exception):  # noqa: N818 -- an event that the conversation handles, never an operator's error
    """The connection ended, or no answer came in time. ``unsaid`` counts the octets that were not sent."""

    def __init__(self, what: str = "connection lost", *, unsaid: int = 0) -> None:
        """``what`` happened, in words."""
        super().__init__(what)
        self.unsaid = unsaid


class Closing(Lost):
    """The relay answered 421: it ends the connection, and has not accepted the message."""

    def __init__(self, answer: Reply) -> None:
        """The 421."""
        super().__init__(f"it answered {answer}")
        self.answer = answer


def accepted(answer: Reply) -> Outcome:
    """The outcome of a message that the relay accepted."""
    return _outcome(State.SENT, answer, queue_id=answer.queue_id)


def refused(relay: str, answer: Reply, *, may_quit: bool) -> Outcome:
    """The outcome of a refusal. Only an address that was refused for good is suppressed.

    Raises:
        RelayTroubleError: the refusal concerns the sender, or all our messages.
    """
    enhanced = answer.enhanced or ""
    if answer.stage is Stage.MAIL:
        cure = "check email.from, and what the relay lets this login send"
        raise _trouble(relay, answer, cure, may_quit=may_quit)
    if answer.never and (enhanced in _SENDER_AT_FAULT or enhanced.startswith(_POLICY)):
        cure = "fix what its reply names (sender, login, SPF, DKIM or reputation)"
        raise _trouble(relay, answer, cure, may_quit=may_quit, outcome=_outcome(State.DEFERRED, answer))
    if answer.later:
        return _outcome(State.DEFERRED, answer)
    if answer.never:
        return _outcome(State.FAILED, answer, address_is_dead=enhanced in DEAD_ADDRESS)
    if answer.stage is Stage.DOT:
        return _outcome(State.UNKNOWN, answer)
    raise _trouble(relay, answer, "check that smtp.host and smtp.port lead to an SMTP relay", may_quit=may_quit)


def lost_before_the_dot(relay: str, lost: Lost, stage: Stage, *, marked: bool) -> RelayTroubleError:
    """The connection ended, and the message cannot have arrived. It may be tried again if it is not ``marked``."""
    outcome = Outcome(state=State.DEFERRED, stage=stage, reply=str(lost))
    if isinstance(lost, Closing):
        outcome = _outcome(State.DEFERRED, lost.answer)
    return RelayTroubleError(
        f"The relay {relay} is in trouble: {lost} at {_said(stage)}; look at its log, then run again.",
        outcome=outcome if stage in _RECIPIENT_NAMED else None,
        may_pass=True,
        try_again=not marked,
    )


def lost_after_the_dot(lost: Lost) -> Outcome:
    """The outcome of a message that may have been accepted: only the ledger may decide to send it again."""
    return Outcome(state=State.UNKNOWN, stage=Stage.DOT, reply=f"{lost} after the final dot")


def _trouble(
    relay: str, answer: Reply, cure: str, *, may_quit: bool, outcome: Outcome | None = None
) -> RelayTroubleError:
    msg = f"The relay {relay} answered {answer} at {_said(answer.stage)}; {cure}."
    return RelayTroubleError(msg, outcome=outcome, may_pass=answer.later, may_quit=may_quit)


def _said(stage: Stage) -> str:
    return {Stage.MAIL: "MAIL FROM", Stage.RCPT: "RCPT TO", Stage.DOT: "the end of the message"}.get(
        stage, stage.upper()
    )


def _outcome(state: State, answer: Reply, *, queue_id: str | None = None, address_is_dead: bool = False) -> Outcome:
    return Outcome(
        state=state,
        stage=answer.stage,
        code=answer.code,
        enhanced=answer.enhanced,
        reply=answer.text,
        queue_id=queue_id,
        address_is_dead=address_is_dead,
    )
