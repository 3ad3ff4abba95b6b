"""What the relay's answers mean, against a real SMTP server that misbehaves as told."""

import re
import socket

import pytest
from support.smtpd import Action, Script, Smtpd, times
from support.transport import DATA, ENVELOPE, UP_TO_DOT, answers, connect, send

from token_pipelines.envelope import Envelope
from token_pipelines.errors import RelayError
from token_pipelines.model import Outcome, Stage, State
from token_pipelines.smtp.answers import RelayTroubleError
from token_pipelines.smtp.lane import Lane

OLD = ("8BITMIME",)

pytestmark = pytest.mark.usefixtures("pipelining")


def test_send_accepted() -> None:
    """Sent, with the queue id, byte for byte, in one transaction on one connection."""
    outcome, server = send()
    assert outcome.state is State.SENT
    assert (outcome.stage, outcome.code, outcome.enhanced) == (Stage.DOT, 250, "2.0.0")
    assert outcome.queue_id is not None
    assert outcome.reply == ""  # of a yes only the queue id is kept
    assert [(one.sender, one.recipient) for one in server.accepted] == [
        ("noreply@example.org", "ada@example.org"),
        ("noreply@example.org", "next@example.org"),
    ]
    assert server.accepted[0].data == DATA
    assert server.accepted[0].message["Subject"] == "hello"
    assert server.connections == 1
    assert [line.split()[0].upper() for line in server.commands] == [
        "EHLO",
        *("MAIL", "RCPT", "DATA") * 2,
        "QUIT",
    ]


@pytest.mark.parametrize("stage", ["rcpt", "data", "dot"])
@pytest.mark.parametrize(("code", "text"), [(450, "4.2.0 greylisted"), (452, "4.2.2 full"), (451, "4.7.1 try later")])
def test_send_not_now(stage: str, code: int, text: str) -> None:
    """4xx on this message: deferred, and the connection goes on."""
    outcome, server = send(answers(stage, code, text))
    assert outcome == Outcome(state=State.DEFERRED, stage=Stage(stage), code=code, enhanced=text[:5], reply=text)
    assert server.connections == 1
    assert ("RSET" in server.commands) == (stage != "dot")
    assert len(server.accepted) == 1


@pytest.mark.parametrize("stage", ["rcpt", "data", "dot"])
@pytest.mark.parametrize(
    ("code", "text", "enhanced", "dead"),
    [
        (550, "5.1.1 no such user", "5.1.1", True),
        (550, "5.1.2 no such domain", "5.1.2", True),
        (553, "5.1.3 odd address", "5.1.3", True),
        (551, "5.1.6 moved away", "5.1.6", True),
        (556, "5.1.10 null MX", "5.1.10", True),
        (550, "5.1.0 some address trouble", "5.1.0", False),
        (550, "5.1.100 unheard of", "5.1.100", False),
        (552, "5.2.2 mailbox full", "5.2.2", False),
        (554, "no", None, False),
        (550, "2.1.1 a code of another class", None, False),
        (550, "5.1.1\nno such user\nnone at all", "5.1.1", True),
    ],
)
def test_send_never(stage: str, code: int, text: str, enhanced: str | None, *, dead: bool) -> None:
    """5xx on this message: failed; only what is certain about an address condemns it."""
    outcome, server = send(answers(stage, code, text))
    assert (outcome.state, outcome.stage, outcome.code) == (State.FAILED, Stage(stage), code)
    assert (outcome.enhanced, outcome.address_is_dead) == (enhanced, dead)
    assert outcome.reply == " ".join(text.split())
    assert server.connections == 1


@pytest.mark.parametrize("stage", ["rcpt", "data", "dot"])
@pytest.mark.parametrize("text", ["5.7.1 blocked", "5.7.26 SPF", "5.1.7 bad sender", "5.1.8 bad sender's domain"])
def test_send_policy_or_sender_refused(stage: str, text: str) -> None:
    """Blames us, not the recipient: put off, and whose trouble it is, the next messages tell."""
    with Smtpd(script=times(1, stage, Action(code=550, text=text))) as server, connect(server) as connection:
        outcome = connection.send(ENVELOPE)
        assert (outcome.state, outcome.stage, outcome.address_is_dead) == (State.DEFERRED, Stage(stage), False)
        assert re.search(rf"answered 550 {text} at .*; fix what its reply names", connection.explain(outcome))
        assert server.accepted == []
        assert connection.send(ENVELOPE).state is State.SENT
    assert server.connections == 1


@pytest.mark.parametrize("stage", ["rcpt", "data", "dot"])
@pytest.mark.parametrize(
    ("code", "text"),
    [
        (500, "what"),
        (501, "syntax"),
        (502, "not implemented"),
        (503, "bad sequence"),
        (504, "5.5.2 need fully-qualified hostname"),
        (521, "no mail here"),
        (530, "Authentication required"),
        (535, "5.7.8 no"),
        (538, "encrypt first"),
        (550, "relay not permitted"),
        (550, "relaying denied"),
        (550, "Unable to relay for ada"),
        (553, "sorry, that domain isn't in my list of allowed rcpthosts"),
        (550, "Sender verify failed"),
        (550, "Sender address rejected: not found"),
        (550, "HELO name is not welcome"),
        (554, "5.5.1 no valid recipients"),
    ],
)
def test_send_refusal_of_the_session_is_never_the_recipients(stage: str, code: int, text: str) -> None:
    outcome, _ = send(answers(stage, code, text))
    assert (outcome.state, outcome.code, outcome.address_is_dead) == (State.DEFERRED, code, False)


def test_send_dead_address_in_a_relays_own_words_is_the_recipients() -> None:
    """Postfix names the table in which it looked."""
    outcome, _ = send(answers("rcpt", 550, "5.1.1 <x>: User unknown in relay recipient table"))
    assert (outcome.state, outcome.address_is_dead) == (State.FAILED, True)


@pytest.mark.parametrize(
    ("code", "text"), [(550, "5.1.1 no"), (451, "4.3.0 later"), (554, "no"), (530, "5.7.0 log in")]
)
def test_send_mail_refused(code: int, text: str) -> None:
    """No refusal of MAIL blames the recipient."""
    with Smtpd(script=answers("mail", code, text)) as server, connect(server) as connection:
        outcome = connection.send(ENVELOPE)
        assert (outcome.state, outcome.stage, outcome.address_is_dead) == (State.DEFERRED, Stage.MAIL, False)
        cure = "look at its log; it may ask for a lower" if code < 500 else r"check email\.from"
        assert re.search(rf"answered {code} {text} at MAIL FROM; {cure}", connection.explain(outcome))
    assert server.accepted == []


@pytest.mark.parametrize("stage", UP_TO_DOT)
def test_send_service_closing_once(stage: str) -> None:
    """A 421 is tried again, once, on a new connection."""
    outcome, server = send(times(1, stage, Action(code=421, text="4.3.2 closing", drop="answered")))
    assert outcome.state is State.SENT
    assert server.connections == 2
    assert [one.recipient for one in server.accepted] == ["ada@example.org", "next@example.org"]


@pytest.mark.parametrize("stage", UP_TO_DOT)
def test_send_service_closing_twice(stage: str) -> None:
    """Then it is the relay's trouble, even where it keeps the connection open; a later send connects anew."""
    script = times(2, stage, Action(code=421, text="4.3.2 closing"))
    with Smtpd(script=script) as server, connect(server) as connection:
        with pytest.raises(RelayError, match=r"it answered 421 4\.3\.2 closing at .*; look at its log"):
            connection.send(ENVELOPE)
        assert server.accepted == []
        assert server.connections == 2
        assert connection.send(ENVELOPE).state is State.SENT


@pytest.mark.parametrize("drop", ["before", "after"])
@pytest.mark.parametrize("stage", UP_TO_DOT)
def test_send_lost_once(stage: str, drop: str) -> None:
    """Lost before the dot: tried again, once, on a new connection."""
    outcome, server = send(times(1, stage, Action(drop=drop)))  # type: ignore[arg-type]
    assert outcome.state is State.SENT
    assert server.connections == 2


def test_send_service_closing_after_the_message() -> None:
    """It has refused the message, which was marked by then: it is put off, not tried again at once."""
    script = times(1, "dot", Action(code=421, text="4.3.2 closing"))
    with Smtpd(script=script) as server, connect(server) as connection:
        with pytest.raises(
            RelayTroubleError, match=r"it answered 421 4\.3\.2 closing at the end of the mess"
        ) as caught:
            connection.send(ENVELOPE)
        assert caught.value.outcome == Outcome(
            state=State.DEFERRED, stage=Stage.DOT, code=421, enhanced="4.3.2", reply="4.3.2 closing"
        )
        assert server.accepted == []
        assert connection.send(ENVELOPE).state is State.SENT
    assert server.connections == 2


def test_send_lost_while_writing() -> None:
    """The dot is written last: when the write fails it cannot have arrived, so the message is safe to send again."""
    large = Envelope(sender="noreply@example.org", recipient="ada@example.org", data=(b"x" * 900_000 + b"\r\n") * 24)
    with Smtpd(script=times(1, "data", Action(drop="answered", code=354))) as server, connect(server) as connection:
        with pytest.raises(RelayTroubleError, match="connection lost at DATA") as caught:
            connection.send(large)
        assert caught.value.outcome == Outcome(state=State.DEFERRED, stage=Stage.DATA, reply="connection lost")
        assert connection.send(large).state is State.SENT
    assert server.connections == 2
    assert server.accepted[0].data == large.data


@pytest.mark.parametrize("stage", UP_TO_DOT)
def test_send_garbled_answer(stage: str) -> None:
    """What is no SMTP reply is no answer: tried again on a new connection."""
    outcome, server = send(times(1, stage, Action(code=25)))
    assert outcome.state is State.SENT
    assert server.connections == 2


@pytest.mark.parametrize("stage", UP_TO_DOT)
def test_send_lost_twice(stage: str) -> None:
    """Then it is the relay's trouble, and the sentence says where."""
    with (
        Smtpd(script=times(2, stage, Action(drop="before"))) as server,
        connect(server) as connection,
        pytest.raises(RelayError, match=rf"connection lost at {stage.upper()}"),
    ):
        connection.send(ENVELOPE)
    assert server.accepted == []


@pytest.mark.parametrize("stage", UP_TO_DOT)
def test_send_stalled_before_the_dot(stage: str) -> None:
    """Slow is as good as lost."""
    with (
        Smtpd(script=times(2, stage, Action(stall=1.0))) as server,
        connect(server, command_timeout=0.2) as connection,
        pytest.raises(RelayError, match=rf"no answer in time at {stage.upper()}"),
    ):
        connection.send(ENVELOPE)
    assert server.accepted == []


@pytest.mark.parametrize(("drop", "delivered"), [("before", 0), ("after", 1)])
def test_send_lost_after_the_dot(drop: str, delivered: int) -> None:
    """Accepted or not, nobody can tell: unknown, and not tried again here."""
    outcome, server = send(times(1, "dot", Action(drop=drop)))  # type: ignore[arg-type]
    assert outcome == Outcome(state=State.UNKNOWN, stage=Stage.DOT, reply="connection lost after the final dot")
    assert [one.recipient for one in server.accepted] == ["ada@example.org"] * delivered + ["next@example.org"]


def test_send_stalled_after_the_dot() -> None:
    """The time was up while the relay had it: unknown."""
    outcome, server = send(times(1, "dot", Action(stall=1.0)), dot_timeout=0.3)
    assert (outcome.state, outcome.stage) == (State.UNKNOWN, Stage.DOT)
    assert outcome.reply == "no answer in time after the final dot"
    assert len(server.accepted) == 2


def test_send_slow_after_the_dot() -> None:
    """A relay that scans a message may take longer for it than for a command."""
    outcome, server = send(times(1, "dot", Action(stall=0.6)), timeout=0.3, command_timeout=0.3)
    assert outcome.state is State.SENT
    assert server.connections == 1


def test_send_long_wait_is_for_the_dot_alone() -> None:
    """The next command on the same connection waits as briefly as the first did."""
    said = iter(range(9))
    stall_later: Script = lambda stage, _: Action(stall=0.8) if stage == "mail" and next(said) > 0 else None  # noqa: E731
    with Smtpd(script=stall_later) as slow, connect(slow, command_timeout=0.3, dot_timeout=5) as connection:
        assert connection.send(ENVELOPE).state is State.SENT
        with pytest.raises(RelayError, match="no answer in time at MAIL"):
            connection.send(ENVELOPE)
    assert (len(slow.accepted), slow.connections) == (1, 2)


@pytest.mark.parametrize("stage", [*UP_TO_DOT, "rset"])
def test_send_slower_than_connecting_may_be(stage: str) -> None:
    """A relay that asks another one about the recipient takes longer than one that greets."""
    refuse = times(1 if stage == "rset" else 0, "rcpt", Action(code=450, text="4.2.0 greylisted"))
    stall = times(1, stage, Action(stall=0.6))
    outcome, server = send(lambda *what: refuse(*what) or stall(*what), timeout=0.3)
    assert outcome.state is (State.DEFERRED if stage == "rset" else State.SENT)
    assert server.connections == 1


def test_send_nonsense_after_the_dot() -> None:
    """An answer that is neither yes nor no leaves doubt."""
    outcome, _ = send(times(1, "dot", Action(code=354, text="pardon")))
    assert (outcome.state, outcome.code) == (State.UNKNOWN, 354)


def test_send_reset_refused() -> None:
    """The outcome stands, and the next message gets a new connection."""
    both = [times(1, "rcpt", Action(code=550, text="5.1.1 no")), times(1, "rset", Action(drop="before"))]
    outcome, server = send(lambda stage, argument: both[0](stage, argument) or both[1](stage, argument))
    assert (outcome.state, outcome.address_is_dead) == (State.FAILED, True)
    assert server.connections == 2


def test_send_recycled() -> None:
    """A connection is renewed after a number of messages."""
    with Smtpd() as server, connect(server, recycle_after=2) as connection:
        for _ in range(5):
            assert connection.send(ENVELOPE).state is State.SENT
    assert server.connections == 3
    assert server.commands.count("QUIT") == 3
    assert len(server.accepted) == 5


def test_send_stale_connection() -> None:
    """A relay that hung up while we idled costs nothing but a new connection."""
    with Smtpd(script=times(1, "dot", Action(code=250, text="ok", drop="answered"))) as server:
        with connect(server) as connection:
            assert connection.send(ENVELOPE).state is State.SENT
            assert connection.send(ENVELOPE).state is State.SENT
        assert server.connections == 2


def test_send_needs_smtputf8() -> None:
    """Used when offered; a recipient that needs it fails where it is not."""
    envelope = Envelope(sender="noreply@example.org", recipient="ädä@example.org", data="To: ädä\r\n\r\nx\r\n".encode())
    outcome, server = send(envelope=envelope)
    assert outcome.state is State.SENT
    assert server.accepted[0].recipient == "ädä@example.org"
    assert "MAIL FROM:<noreply@example.org> SMTPUTF8 BODY=8BITMIME" in server.commands
    assert "MAIL FROM:<noreply@example.org>" in server.commands
    with Smtpd(extensions=OLD) as old, connect(old) as connection:
        assert connection.send(envelope) == Outcome(
            state=State.FAILED, stage=Stage.RCPT, reply="the relay does not offer SMTPUTF8"
        )
        assert connection.send(ENVELOPE).state is State.SENT


def test_send_one_write_for_body_and_dot(monkeypatch: pytest.MonkeyPatch, *, pipelining: bool) -> None:
    """Two writes would wait 44 ms for the delayed acknowledgement in between; commands go at once where they may."""
    writes: list[bytes] = []
    say = Lane._say  # noqa: SLF001 -- what crosses the socket is not visible from outside

    def said(lane: Lane, octets: bytes) -> None:
        assert lane._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0  # noqa: SLF001 -- as above
        writes.append(octets)
        say(lane, octets)

    monkeypatch.setattr(Lane, "_say", said)
    with Smtpd() as server, connect(server) as connection:
        connection.send(ENVELOPE)
    commands = [b"MAIL FROM:<noreply@example.org>\r\n", b"RCPT TO:<ada@example.org>\r\n", b"DATA\r\n"]
    assert writes[:-1] == ([b"".join(commands)] if pipelining else commands)
    assert writes[-1] == DATA.replace(b"\r\n.", b"\r\n..") + b".\r\n"


def test_send_refused_recipient_and_data_taken(*, pipelining: bool) -> None:
    """A relay that waits for the message all the same gets a lone dot, and the refusal stands: nothing is sent."""
    stages: list[str] = []
    refuse = answers("rcpt", 550, "5.1.1 no such user")

    def script(stage: str, argument: str) -> Action | None:
        stages.append(stage)
        return refuse(stage, argument)

    with Smtpd(script=script, data_without_recipients=True) as server, connect(server) as connection:
        outcome = connection.send(ENVELOPE)
        assert (outcome.state, outcome.stage, outcome.enhanced) == (State.FAILED, Stage.RCPT, "5.1.1")
        assert outcome.address_is_dead
        assert connection.send(ENVELOPE).state is State.SENT
    assert stages[2:-5] == ["mail", "rcpt", *(["data", "dot"] if pipelining else ["rset"])]
    assert (len(server.accepted), server.connections) == (1, 1)
    assert server.accepted[0].data == DATA


@pytest.mark.parametrize("stage", ["data", "dot"])
@pytest.mark.parametrize("action", [Action(drop="before"), Action(code=421, text="4.3.2 closing"), Action(stall=1.0)])
def test_send_refused_and_lost(stage: str, action: Action, *, pipelining: bool) -> None:
    """What comes after the refusal changes nothing about it; the next message gets a new connection."""
    refuse = answers("rcpt", 450, "4.2.0 greylisted")
    then = times(1 if pipelining else 0, stage, action)  # in lock-step there is no such thing
    with (
        Smtpd(script=lambda *what: refuse(*what) or then(*what), data_without_recipients=True) as server,
        connect(server, command_timeout=0.4) as connection,
    ):
        outcome = connection.send(ENVELOPE)
        assert (outcome.state, outcome.stage, outcome.code) == (State.DEFERRED, Stage.RCPT, 450)
        assert connection.send(ENVELOPE).state is State.SENT
    assert len(server.accepted) == 1
    assert server.connections == (2 if pipelining else 1)


def test_send_sender_refused_and_data_taken() -> None:
    """The refusal of the sender is what is told, and no message comes of it."""
    script = answers("mail", 550, "5.7.1 not from you")
    with Smtpd(script=script, data_without_recipients=True) as server, connect(server) as connection:
        outcome = connection.send(ENVELOPE)
        assert (outcome.state, outcome.stage, outcome.reply) == (State.DEFERRED, Stage.MAIL, "5.7.1 not from you")
    assert server.accepted == []


def test_send_envelope_id() -> None:
    """Said where the relay can put it into its reports, and left out elsewhere."""
    envelope = Envelope(sender="noreply@example.org", recipient="ada@example.org", data=DATA, envid="0198a3c2-7b1e")
    _, server = send(envelope=envelope)
    assert "MAIL FROM:<noreply@example.org> RET=HDRS ENVID=0198a3c2-7b1e" in server.commands
    with Smtpd(extensions=OLD) as old, connect(old) as connection:
        connection.send(envelope)
    assert "MAIL FROM:<noreply@example.org>" in old.commands


def test_send_without_a_last_line_break() -> None:
    """The dot stands on a line of its own all the same, and a dot at the very beginning is doubled."""
    envelope = Envelope(sender="noreply@example.org", recipient="ada@example.org", data=b".first\r\nlast")
    _, server = send(envelope=envelope)
    assert server.accepted[0].data == b".first\r\nlast\r\n"


def test_send_login_needed() -> None:
    """A relay that wants a login refuses MAIL: nobody's address is to blame."""
    with Smtpd(credentials={"ada": "x"}) as server, connect(server) as connection:
        outcome = connection.send(ENVELOPE)
    assert (outcome.state, outcome.stage, outcome.code) == (State.DEFERRED, Stage.MAIL, 530)
    assert outcome.reply == "5.7.0 log in first"
