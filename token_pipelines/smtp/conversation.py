"""The client's side of SMTP on one connection, message after message, without a socket.

A conversation is a generator. It writes octets with ``say`` and yields what it needs next. The caller answers with
``send``:

    it yields         the caller sends
    Wants.MESSAGE     the next envelope, or None to end the conversation
    Wants.REPLY       the relay's next reply, ``(code, text)``
    Wants.MARK        the same message, perhaps written again, once the ledger has marked it as being sent
    Wants.FOLLOWING   the envelope whose commands may follow this message's dot at once, or None
    Wants.DOT_REPLY   the relay's answer to the message
    an `Outcome`      None; this is the message's outcome

If the connection ends, or a reply does not come in time, the caller throws in `Lost`. When a conversation ends by
itself, the caller may send QUIT.

A message is marked after the relay's 354, so one that is refused or lost before that was never marked.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from token_pipelines.envelope import Envelope
from token_pipelines.model import Outcome, Stage, State
from token_pipelines.smtp.answers import (
    Closing,
    Lost,
    accepted,
    lost_after_the_dot,
    lost_before_the_dot,
    refused,
)
from token_pipelines.smtp.session import CLOSING, Reply, reply

GO_AHEAD: Final = 354
_ORDINARY: Final = {Stage.MAIL: 250, Stage.RCPT: 250, Stage.DATA: GO_AHEAD}
"""The ordinary answers before the message. Their texts are ignored."""


class Wants(Enum):
    """What a conversation needs next."""

    MESSAGE = auto()
    REPLY = auto()
    MARK = auto()
    FOLLOWING = auto()
    DOT_REPLY = auto()
    END = auto()  # it has ended by itself


Step = Wants | Outcome
Conversation = Generator[Step, Any, None]
"""The type that is sent in depends on the step: see the module."""

_Offer = Generator[Step, Any, tuple[Reply | None, bool]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Offers:
    """The extensions that a relay offers, and its name for messages (``relay``)."""

    relay: str
    pipelining: bool = False
    smtputf8: bool = False
    eight_bit: bool = False
    dsn: bool = False

    def can_take(self, envelope: Envelope) -> bool:
        """Whether this relay accepts the characters of the recipient's address."""
        return self.smtputf8 or envelope.recipient.isascii()

    def commands(self, envelope: Envelope) -> list[tuple[Stage, bytes]]:
        """The commands before a message, each with the stage at which it is answered."""
        return [
            (Stage.MAIL, f"MAIL FROM:<{envelope.sender}>{self._options(envelope)}\r\n".encode()),
            (Stage.RCPT, f"RCPT TO:<{envelope.recipient}>\r\n".encode()),
            (Stage.DATA, b"DATA\r\n"),
        ]

    def _options(self, envelope: Envelope) -> str:
        """The parameters of MAIL."""
        options = ""
        if not envelope.recipient.isascii():
            options = " SMTPUTF8 BODY=8BITMIME" if self.eight_bit else " SMTPUTF8"
        if envelope.envid is not None and self.dsn:
            options += f" RET=HDRS ENVID={envelope.envid}"  # RFC 3461: a report returns only the headers
        return options


def converse(offers: Offers, say: Callable[[bytes], None], *, recycle_after: int) -> Conversation:
    """Send message after message, at most ``recycle_after`` of them.

    Raises:
        RelayTroubleError: the present message was not delivered, and the connection cannot be used any more.
        Lost: the connection has ended between messages. The commands of the next one may have been sent already.
    """
    envelope: Envelope | None = None
    is_said, left = False, recycle_after
    while True:
        if envelope is None:
            envelope = (yield Wants.MESSAGE) if left else None
        if envelope is None:
            return
        if not offers.can_take(envelope):
            yield Outcome(state=State.FAILED, stage=Stage.RCPT, reply="the relay does not offer SMTPUTF8")
            envelope = None
            continue
        left -= 1
        refusal, is_lost = yield from _offer(offers, say, envelope, is_said=is_said)
        if refusal is None:
            envelope, is_said = yield from _deliver(offers, say, ahead=bool(left))
            continue
        yield refused(offers.relay, refusal)
        if is_lost:
            raise Lost
        envelope, is_said = None, False


def _offer(offers: Offers, say: Callable[[bytes], None], envelope: Envelope, *, is_said: bool) -> _Offer:
    """Send MAIL, RCPT and DATA, in one write if the relay offers PIPELINING; send nothing if ``is_said``.

    Returns:
        The first refusal, or None if the relay waits for the message; and whether the connection was lost after that.
    """
    commands = offers.commands(envelope)
    if offers.pipelining and not is_said:
        say(b"".join(command for _, command in commands))
    refusal: Reply | None = None
    stage, code = Stage.MAIL, 0
    try:
        for stage, command in commands:
            if not offers.pipelining:
                say(command)
            answer = yield from _hear(Wants.REPLY, stage, envelope)
            code = answer.code
            is_yes = code == GO_AHEAD if stage is Stage.DATA else answer.accepted
            if not is_yes and refusal is None:
                refusal = answer
                if not offers.pipelining:
                    break
        if refusal is not None:
            yield from _undo(say, envelope, waits_for_text=code == GO_AHEAD)
    except Lost as lost:
        if refusal is None:
            raise lost_before_the_dot(offers.relay, lost, stage, marked=False) from None
        return refusal, True  # the refusal counts, whatever came after it
    return refusal, False


def _undo(say: Callable[[bytes], None], envelope: Envelope, *, waits_for_text: bool) -> Generator[Step, Any, None]:
    """End a transaction that the relay has refused.

    Raises:
        Lost: the connection cannot be used any more.
    """
    # A relay that waits for a message although it refused the recipient gets an empty one (RFC 2920, 3.1).
    say(b".\r\n" if waits_for_text else b"RSET\r\n")
    answer = yield from _hear(Wants.REPLY, Stage.DOT, envelope)
    if not (waits_for_text or answer.accepted):
        raise Lost


def _deliver(
    offers: Offers, say: Callable[[bytes], None], *, ahead: bool
) -> Generator[Step, Any, tuple[Envelope | None, bool]]:
    """Send the message, and behind its dot the next one's commands (RFC 2920, 3.1). Wait for the answer.

    Returns:
        The next message, and whether its commands were sent.
    """
    try:
        envelope: Envelope = yield Wants.MARK
    except Lost as lost:
        raise lost_before_the_dot(offers.relay, lost, Stage.DATA, marked=False) from None
    following: Envelope | None = (yield Wants.FOLLOWING) if ahead and offers.pipelining else None
    behind = b""
    if following is not None and offers.can_take(following):
        behind = b"".join(command for _, command in offers.commands(following))
    say(_dotted(envelope.data) + behind)
    try:
        answer = yield from _hear(Wants.DOT_REPLY, Stage.DOT, envelope)
    except Closing as closing:  # a refusal: the relay has not accepted the message
        raise lost_before_the_dot(offers.relay, closing, Stage.DOT, marked=True) from None
    except Lost as lost:
        if lost.unsaid > len(behind):  # the dot was not sent
            raise lost_before_the_dot(offers.relay, lost, Stage.DATA, marked=True) from None
        yield lost_after_the_dot(lost)
        raise
    if answer.accepted:
        yield accepted(answer)
    else:
        outcome = refused(offers.relay, answer)
        yield outcome
        if outcome.state is State.UNKNOWN:
            raise Lost
    return following, bool(behind)


def _hear(want: Wants, stage: Stage, envelope: Envelope) -> Generator[Step, Any, Reply]:
    """The relay's next answer.

    Raises:
        Lost: none came, or it was not valid; `Closing` if it was a 421.
    """
    code, text = yield want
    if not 200 <= code < 600:  # noqa: PLR2004 not SMTP, or a reply cut off by the end of the connection
        raise Lost
    if code == _ORDINARY.get(stage):
        return Reply(stage=stage, code=code, text="", enhanced=None)
    answer = reply(stage, code, text, hide=(envelope.recipient, envelope.sender))
    if code == CLOSING:
        raise Closing(answer)
    return answer


def _dotted(data: bytes) -> bytes:
    """The message as it is sent: with leading dots doubled, and the final dot (RFC 5321, 4.5.2)."""
    first = b"." if data.startswith(b".") else b""
    return first + data.replace(b"\r\n.", b"\r\n..") + (b".\r\n" if data.endswith(b"\r\n") else b"\r\n.\r\n")
