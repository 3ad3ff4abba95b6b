"""The relay: what its answers mean for one message, and for all of them. Nothing above knows a numeric code.

A recipient's own trouble is an ``Outcome``. Trouble of the relay's, or of the sender's, is a ``RelayError``: then
nothing of this message was delivered, and the next would fare no better.
"""

from types import TracebackType
from typing import Final, Self

from token_pipelines import config
from token_pipelines.envelope import Envelope
from token_pipelines.errors import RelayError
from token_pipelines.model import DEAD_ADDRESS, Outcome, Stage, State
from token_pipelines.smtp import connecting as session
from token_pipelines.smtp.rate import RateLimit
from token_pipelines.smtp.session import CLOSING, ConnectionLost, Reply, SmtpSession

_GO_AHEAD: Final = 354
_SENDER_AT_FAULT: Final = frozenset({"5.1.7", "5.1.8"})  # a wrong From must not silence everyone we write to
_POLICY: Final = "5.7."
_RECIPIENT_NAMED: Final = frozenset({Stage.RCPT, Stage.DATA, Stage.DOT})
_TRIES: Final = 2  # a connection that has idled may be stale; a new one tells


_Lines = dict[Stage, str]
"""What is said at each stage before a message."""


class RecipientInTroubleError(RelayError):
    """Trouble that came when the recipient had been named: theirs, or everybody's. Nothing was delivered.

    ``outcome`` is what became of the attempt if the trouble is theirs.
    """

    def __init__(self, message: str, outcome: Outcome, *, may_pass: bool) -> None:
        """The sentence, and the outcome."""
        super().__init__(message, may_pass=may_pass)
        self.outcome = outcome


class Relay:
    """The relay as configured. Connections are made from it, one for each thread; the rate limit is theirs together."""

    def __init__(self, smtp: config.Smtp) -> None:
        """Read the certificates.

        Raises:
            ConfigError: ``smtp.ca_file`` cannot be used.
        """
        self._opener = session.Connector(smtp)
        self._dot_timeout = smtp.dot_timeout.total_seconds()
        self._recycle_after = smtp.recycle_after
        self.rate = RateLimit(smtp.rate)

    def connect(self) -> "Connection":
        """A connection that is logged in and ready.

        Raises:
            RelayError: one sentence says why not, and the cure.
        """
        return Connection(self._opener, recycle_after=self._recycle_after, dot_timeout=self._dot_timeout)


class Connection:
    """A persistent connection for one thread, renewed now and then."""

    def __init__(self, opener: session.Connector, *, recycle_after: int, dot_timeout: float) -> None:
        """Use ``Relay.connect``. ``dot_timeout`` is in seconds: how long the answer to a message may take."""
        self._opener = opener
        self._dot_timeout = dot_timeout
        self._recycle_after = recycle_after
        self._dialogue: SmtpSession | None = opener.open()
        self._tried = 0
        self._offered: _Lines = {}  # said already of the next message, and the answers not yet heard

    def __enter__(self) -> Self:
        """The connection itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say goodbye."""
        self.close()

    def close(self) -> None:
        """Say goodbye, without waiting long for the answer. A later ``send`` connects anew."""
        if self._dialogue is not None and not self._offered:  # else the relay would take a QUIT for a message's text
            session.part(self._dialogue)
        self._drop()

    def send(self, envelope: Envelope, *, following: Envelope | None = None) -> Outcome:
        """Send one message, and say what became of it. Whoever sends many waits for ``Relay.rate`` before each.

        The message that is meant to be sent next is ``following``: where the relay takes commands ahead, it hears whom
        that is for while it takes this one, and each message waits once instead of twice. Nothing of it is delivered
        until it is sent; when another one is, or none, that costs a connection.

        Raises:
            RelayError: the relay is in trouble, or refuses the sender or by policy; nothing was delivered.
            RecipientInTroubleError: the same, once the recipient was named.
        """
        for attempt in range(1, _TRIES + 1):
            try:
                return self._send(self._ready(envelope), envelope, following)
            except ConnectionLost as lost:
                self._drop()
                if lost.stage is Stage.DOT:  # perhaps accepted: only the ledger may decide to send it again
                    return Outcome(state=State.UNKNOWN, stage=Stage.DOT, reply=f"{lost} after the final dot")
                trouble = f"{lost} at {_said(lost.stage)}"
                outcome = Outcome(state=State.DEFERRED, stage=lost.stage, reply=str(lost))
            except _Closing as closing:
                self._drop()
                trouble = f"it answered {closing.reply} at {_said(closing.reply.stage)}"
                outcome = _outcome(State.DEFERRED, closing.reply)
            if attempt == _TRIES:
                msg = f"The relay {self._opener.name} is in trouble: {trouble}, twice; look at its log, then run again."
                if outcome.stage in _RECIPIENT_NAMED:
                    raise RecipientInTroubleError(msg, outcome, may_pass=True)
                raise RelayError(msg, may_pass=True)
        raise AssertionError

    def _ready(self, envelope: Envelope) -> SmtpSession:
        if self._dialogue is not None and self._offered not in ({}, _lines(self._dialogue, envelope)):
            self._drop()
        if self._tried >= self._recycle_after:
            self.close()
        if self._dialogue is None:
            self._dialogue = self._opener.open()
            self._tried = 0
        return self._dialogue

    def _drop(self) -> None:
        if self._dialogue is not None:
            self._dialogue.close()
            self._dialogue = None
        self._offered = {}

    def _send(self, dialogue: SmtpSession, envelope: Envelope, following: Envelope | None) -> Outcome:
        if not _can_say(dialogue, envelope):
            return Outcome(state=State.FAILED, stage=Stage.RCPT, reply="the relay does not offer SMTPUTF8")
        self._tried += 1
        answer = self._offer(dialogue, envelope)
        if answer.stage is Stage.MAIL:
            raise self._refusal(answer, "check email.from, and what the relay lets this login send")
        if answer.code != _GO_AHEAD:
            return self._refused(dialogue, answer)
        self._offered = self._ahead(dialogue, following)
        hide = (envelope.recipient, envelope.sender)
        answer = self._heard(
            dialogue.message(envelope.data, *self._offered.values(), timeout=self._dot_timeout, hide=hide)
        )
        if answer.accepted:
            return _outcome(State.SENT, answer, queue_id=answer.queue_id)
        return self._refused(dialogue, answer)

    def _ahead(self, dialogue: SmtpSession, following: Envelope | None) -> _Lines:
        """What is said behind a message of the one that follows it on this connection (RFC 2920, 3.1)."""
        if following is None or self._tried >= self._recycle_after:
            return {}
        if not (dialogue.has_extn("pipelining") and _can_say(dialogue, following)):
            return {}
        return _lines(dialogue, following)

    def _offer(self, dialogue: SmtpSession, envelope: Envelope) -> Reply:
        """Say MAIL, RCPT and DATA, in one write where the relay can take that; give the first refusal, or the 354."""
        hide = (envelope.recipient, envelope.sender)
        lines = _lines(dialogue, envelope)
        at_once = dialogue.has_extn("pipelining")
        if at_once and not self._offered:
            dialogue.say(Stage.MAIL, *lines.values())
        self._offered = {}
        refusal: Reply | None = None
        try:
            for stage, line in lines.items():
                if not at_once:
                    dialogue.say(stage, line)
                answer = self._heard(dialogue.hear(stage, hide=hide))
                yes = answer.code == _GO_AHEAD if stage is Stage.DATA else answer.accepted
                if not yes and refusal is None:
                    refusal = answer
                if refusal is not None and not at_once:
                    break
            if refusal is not None and answer.code == _GO_AHEAD:
                self._heard(dialogue.abandon())
        except (ConnectionLost, _Closing):
            if refusal is None:
                raise
            self._drop()  # the refusal stands; the next message gets a new connection
        return refusal or answer

    def _heard(self, answer: Reply) -> Reply:
        if answer.code == CLOSING:
            raise _Closing(answer)
        return answer

    def _refused(self, dialogue: SmtpSession, answer: Reply) -> Outcome:
        """What a refusal after MAIL means. It never suppresses an address that was not itself refused for good."""
        enhanced = answer.enhanced or ""
        if answer.never and (enhanced in _SENDER_AT_FAULT or enhanced.startswith(_POLICY)):
            refusal = self._refusal(answer, "mend what its reply names (sender, login, SPF, DKIM or reputation)")
            raise RecipientInTroubleError(str(refusal), _outcome(State.DEFERRED, answer), may_pass=False)
        if not (answer.later or answer.never):
            if answer.stage is Stage.DOT:
                self._drop()
                return _outcome(State.UNKNOWN, answer)
            raise self._refusal(answer, "check that smtp.host and smtp.port lead to an SMTP relay")
        if answer.stage is not Stage.DOT:  # after the dot the transaction is over by itself
            self._reset(dialogue)
        if answer.later:
            return _outcome(State.DEFERRED, answer)
        return _outcome(State.FAILED, answer, address_is_dead=enhanced in DEAD_ADDRESS)

    def _reset(self, dialogue: SmtpSession) -> None:
        if self._dialogue is None:  # lost while it refused
            return
        try:
            if dialogue.command(Stage.RCPT, "RSET").accepted:
                return
        except ConnectionLost:
            pass
        self._drop()  # the outcome stands; the next message gets a new connection

    def _refusal(self, answer: Reply, cure: str) -> RelayError:
        self.close()
        msg = f"The relay {self._opener.name} answered {answer} at {_said(answer.stage)}; {cure}."
        return RelayError(msg, may_pass=answer.later)


class _Closing(Exception):  # noqa: N818 -- an event, handled in ``Connection.send``
    """The relay said 421: it is closing the connection, whatever we asked."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


def _lines(dialogue: SmtpSession, envelope: Envelope) -> _Lines:
    return {
        Stage.MAIL: f"MAIL FROM:<{envelope.sender}>{_options(dialogue, envelope)}",
        Stage.RCPT: f"RCPT TO:<{envelope.recipient}>",
        Stage.DATA: "DATA",
    }


def _can_say(dialogue: SmtpSession, envelope: Envelope) -> bool:
    return envelope.recipient.isascii() or dialogue.has_extn("smtputf8")


def _options(dialogue: SmtpSession, envelope: Envelope) -> str:
    """What MAIL says beside the sender, of what the relay offers."""
    options = ""
    if not envelope.recipient.isascii():
        options = " SMTPUTF8 BODY=8BITMIME" if dialogue.has_extn("8bitmime") else " SMTPUTF8"
    if envelope.envid is not None and dialogue.has_extn("dsn"):
        options += f" RET=HDRS ENVID={envelope.envid}"  # RFC 3461: a report need not bring the whole message back
    return options


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
