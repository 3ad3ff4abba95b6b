"""What a relay's answer means for one message. Only this package interprets codes.

The outcome of a message says what the relay answered. Whose trouble a refusal is, only the other messages can tell: see
`delivery.acceptance`. A `RelayTroubleError` says that the connection cannot be used any more.
"""

import re
from typing import Final

from token_pipelines.errors import RelayError
from token_pipelines.model import DEAD_ADDRESS, Outcome, Stage, State
from token_pipelines.smtp.session import Reply

_SENDER_AT_FAULT: Final = frozenset({"5.1.7", "5.1.8"})  # with a wrong From, these come for every recipient
_POLICY: Final = "5.7."
_PROTOCOL: Final = "5.5."
_NOT_THE_RECIPIENTS: Final = frozenset({500, 501, 502, 503, 504, 521, 530, 534, 535, 538})
"""Codes about the session, the login or the relay (RFC 5321, 4.2.3; RFC 4954, 6; RFC 7504)."""
_SAID_OF_US: Final = re.compile(
    r"relay(ing)?\b.{0,20}\b(not|denied|prohibited|refused|disabled)|\b(not|unable)( \w+)? to relay|allowed rcpthosts"
    r"|sender (verif|address rejected|rejected|domain)|authentication|must authenticate|\b[eh][eh]lo\b",
    re.IGNORECASE,
)
"""What relays say of the sender or of themselves without an enhanced code, as Exim, qmail and Exchange do."""

_BARE_OF_A_MAILBOX: Final = 450
"""RFC 5321, 4.2.3: the mailbox is unavailable. The other 4yz without an enhanced code are about the relay."""
_GREYLISTED: Final = re.compile(r"gr[ea]y-?list", re.IGNORECASE)
"""It waits for a second try of this sender and recipient, whatever code it answers."""
_MAILBOX: Final = ("4.1.", "4.2.", "5.1.", "5.2.")
_RECIPIENT_NAMED: Final = frozenset({Stage.RCPT, Stage.DATA, Stage.DOT})


class RelayTroubleError(RelayError):
    """The present message was not delivered, and the connection cannot be used any more.

    Attributes:
        outcome: the attempt's outcome; None if no recipient was named yet.
        try_again: whether perhaps only this connection has the problem, so that another one is worth a try.
    """

    def __init__(
        self, message: str, *, outcome: Outcome | None = None, may_pass: bool, try_again: bool = False
    ) -> None:
        """Take the message for the operator, and what follows from the problem."""
        super().__init__(message, may_pass=may_pass)
        self.outcome = outcome
        self.try_again = try_again


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


def refused(relay: str, answer: Reply) -> Outcome:
    """The outcome of a refusal: failed if it is for good and about this recipient, else deferred.

    Raises:
        RelayTroubleError: it is no answer to what was said.
    """
    if answer.later:
        return _outcome(State.DEFERRED, answer)
    if answer.never:
        if not _is_about_the_recipient(answer):
            return _outcome(State.DEFERRED, answer)
        return _outcome(State.FAILED, answer, address_is_dead=answer.enhanced in DEAD_ADDRESS)
    if answer.stage is Stage.DOT:
        return _outcome(State.UNKNOWN, answer)
    msg = (
        f"The relay {relay} answered {answer} at {_said(answer.stage)}; "
        "check that smtp.host and smtp.port lead to an SMTP relay."
    )
    raise RelayTroubleError(msg, may_pass=False)


def _is_about_the_recipient(answer: Reply) -> bool:
    """Whether a refusal for good may be this recipient's. If it speaks of something else, it never is."""
    enhanced = answer.enhanced or ""
    if answer.stage not in _RECIPIENT_NAMED or enhanced in _SENDER_AT_FAULT:
        return False
    if enhanced in DEAD_ADDRESS:
        return True
    if enhanced.startswith((_POLICY, _PROTOCOL)) or answer.code in _NOT_THE_RECIPIENTS:
        return False
    return _SAID_OF_US.search(answer.text) is None


def is_of_one_mailbox(outcome: Outcome) -> bool:
    """Whether the relay clearly speaks of this recipient's mailbox, so that others need not have the same trouble."""
    if outcome.state is State.FAILED:
        return True
    if _GREYLISTED.search(outcome.reply) is not None:
        return True
    if outcome.enhanced is not None:
        return outcome.enhanced.startswith(_MAILBOX) and outcome.enhanced not in _SENDER_AT_FAULT
    return outcome.code == _BARE_OF_A_MAILBOX


def asks_for_less(outcome: Outcome) -> bool:
    """Whether the relay may be asking to be sent fewer messages a second."""
    return outcome.code is not None and 400 <= outcome.code < 500 and not is_of_one_mailbox(outcome)  # noqa: PLR2004 4yz


def explain(relay: str, outcome: Outcome) -> str:
    """What the relay did to a message, in a sentence with the cure."""
    at = _said(outcome.stage)
    if outcome.code is None:
        return f"The relay {relay} is in trouble: {outcome.reply} at {at}; look at its log, then run again."
    return f"The relay {relay} answered {f'{outcome.code} {outcome.reply}'.strip()} at {at}; {_cure(outcome)}."


def _cure(outcome: Outcome) -> str:
    if outcome.code is not None and outcome.code < 500:  # noqa: PLR2004 4yz
        return "look at its log; it may ask for a lower smtp.rate, or fewer smtp.connections"
    if outcome.stage is Stage.MAIL:
        return "check email.from, and what the relay lets this login send"
    if outcome.state is State.FAILED:
        return "look at its log, and at the addresses that the source returns"
    return "fix what its reply names (sender, login, SPF, DKIM or reputation)"


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
