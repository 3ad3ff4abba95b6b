"""What a relay's answer means for one message, and for all of them. Nothing above this package knows a numeric code.

A recipient's own trouble is an `Outcome`. Trouble with the relay, or with the sender, is a `RelayTroubleError`: then
nothing of the message was delivered, and the next one would fare no better.
"""

from typing import Final

from token_pipelines.errors import RelayError
from token_pipelines.model import DEAD_ADDRESS, Outcome, Stage, State
from token_pipelines.smtp.session import Reply

_SENDER_AT_FAULT: Final = frozenset({"5.1.7", "5.1.8"})  # a wrong From must not silence everyone we write to
_POLICY: Final = "5.7."
_RECIPIENT_NAMED: Final = frozenset({Stage.RCPT, Stage.DATA, Stage.DOT})


class RelayTroubleError(RelayError):
    """The relay's trouble with a message of which nothing was delivered. The connection is of no more use.

    Attributes:
        outcome: what became of the attempt if the trouble is this recipient's alone; None while no recipient was named.
        try_again: whether it may be this connection's trouble alone, so that the message is tried on another one.
        may_quit: whether the relay can be told QUIT; it would take that for text while it waits for a message.
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
        """The sentence, and what follows from it."""
        super().__init__(message, may_pass=may_pass)
        self.outcome = outcome
        self.try_again = try_again
        self.may_quit = may_quit


class Lost(Exception):  # noqa: N818 -- an event that the conversation handles, never an operator's error
    """The connection ended, or no answer came in time. ``unsaid`` counts the octets that did not leave."""

    def __init__(self, what: str = "connection lost", *, unsaid: int = 0) -> None:
        """``what`` happened, in words."""
        super().__init__(what)
        self.unsaid = unsaid


class Closing(Lost):
    """The relay said 421: it ends the connection, whatever it was asked. It has not taken the message."""

    def __init__(self, answer: Reply) -> None:
        """The 421."""
        super().__init__(f"it answered {answer}")
        self.answer = answer


def accepted(answer: Reply) -> Outcome:
    """The message is the relay's now."""
    return _outcome(State.SENT, answer, queue_id=answer.queue_id)


def refused(relay: str, answer: Reply, *, may_quit: bool) -> Outcome:
    """What a refusal means. It never suppresses an address that was not itself refused for good.

    Raises:
        RelayTroubleError: it blames the sender, or all of us.
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
    """The connection ended, and the message cannot have arrived. One that is not ``marked`` may be tried again."""
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
    """Perhaps it was accepted: only the ledger may decide to send it again."""
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
