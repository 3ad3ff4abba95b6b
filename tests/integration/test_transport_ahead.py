"""The next message's commands behind the dot of this one: one wait a message, and every answer means what it meant."""

import socket
from time import sleep
from typing import cast

import pytest
from support.smtpd import Action, Script, Smtpd

from token_pipelines.config import Smtp
from token_pipelines.envelope import Envelope
from token_pipelines.errors import RelayError
from token_pipelines.model import Outcome, Stage, State
from token_pipelines.smtp.session import ConnectionLost, SmtpSession
from token_pipelines.smtp.transport import Connection, Relay

OLD = ("8BITMIME",)


def to(name: str, data: bytes = b"Subject: hello\r\n\r\nhello\r\n") -> Envelope:
    return Envelope(sender="noreply@example.org", recipient=f"{name}@example.org", data=data)


FIRST, SECOND, THIRD = to("first"), to("second"), to("third")


def connect(server: Smtpd, **changes: object) -> Connection:
    ordinary = {"host": "127.0.0.1", "port": server.port, "security": "none", "rate": None}
    short = {"timeout": "5s", "command_timeout": "1s", "dot_timeout": "1s"}
    return Relay(Smtp.model_validate({**ordinary, **short, **changes})).connect()


def recipients(server: Smtpd) -> list[str]:
    return [one.recipient.partition("@")[0] for one in server.accepted]


def at_the(turn: int, stage: str, action: Action) -> Script:
    """Act when that stage is reached for that time, and never else."""
    reached = [0]

    def script(now: str, _argument: str) -> Action | None:
        reached[0] += now == stage
        return action if now == stage and reached[0] == turn else None

    return script


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What goes to the socket, write by write, once the connection stands."""
    seen: list[bytes] = []
    send = SmtpSession.send

    def noted(dialogue: SmtpSession, s: bytes | str) -> None:
        if isinstance(s, bytes):
            seen.append(s)
        send(dialogue, s)

    monkeypatch.setattr(SmtpSession, "send", noted)
    return seen


def test_the_next_ones_commands_are_behind_the_dot_in_the_same_write(writes: list[bytes]) -> None:
    with Smtpd() as server, connect(server) as connection:
        for envelope, following in ((FIRST, SECOND), (SECOND, THIRD), (THIRD, None)):
            assert connection.send(envelope, following=following).state is State.SENT
    said = {
        name: f"MAIL FROM:<noreply@example.org>\r\nRCPT TO:<{name}@example.org>\r\nDATA\r\n".encode()
        for name in ("first", "second", "third")
    }
    message = FIRST.data + b".\r\n"
    assert writes[-5:] == [said["first"], message + said["second"], message + said["third"], message, b"QUIT\r\n"]
    assert recipients(server) == ["first", "second", "third"]
    assert server.connections == 1


ANSWERS = [
    *(Action(code=code, text=text) for code, text in ((450, "4.2.0 later"), (550, "5.1.1 no such user"), (552, "no"))),
    *(Action(code=code, text=text) for code, text in ((421, "4.3.2 closing"), (550, "5.7.1 policy"), (25, "what"))),
    *(Action(drop="before"), Action(drop="after"), Action(drop="answered"), Action(stall=1.5)),
]


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "dot"])
@pytest.mark.parametrize("action", ANSWERS, ids=lambda action: f"{action.code or action.drop or 'stall'}")
@pytest.mark.parametrize("turn", [1, 2])
def test_every_answer_means_the_same(stage: str, action: Action, turn: int) -> None:
    """To the message that is sent, and to the one that was heard of ahead: what is told and what is delivered."""

    def told(*, ahead: bool) -> tuple[list[object], list[str]]:
        outcomes: list[Outcome | str] = []
        with Smtpd(script=at_the(turn, stage, action)) as server:
            with connect(server) as connection:
                for envelope, following in ((FIRST, SECOND), (SECOND, THIRD), (THIRD, None)):
                    try:
                        outcomes.append(connection.send(envelope, following=following if ahead else None))
                    except RelayError as error:
                        outcomes.append(str(error).replace(str(server.port), "PORT"))
            return [_without_its_queue_id(outcome) for outcome in outcomes], recipients(server)

    assert told(ahead=True) == told(ahead=False)


def _without_its_queue_id(outcome: Outcome | str) -> object:
    if isinstance(outcome, str) or outcome.queue_id is None:
        return outcome
    return outcome.state, outcome.stage, outcome.code


def test_another_one_is_sent_on_a_new_connection() -> None:
    """The one that the relay has heard of gets nothing."""
    with Smtpd() as server, connect(server) as connection:
        assert connection.send(FIRST, following=SECOND).state is State.SENT
        assert connection.send(THIRD).state is State.SENT
    assert recipients(server) == ["first", "third"]
    assert server.connections == 2


def test_the_same_one_may_have_been_written_again() -> None:
    """Its commands are the same, and its text is the new one."""
    with Smtpd() as server, connect(server) as connection:
        connection.send(FIRST, following=SECOND)
        connection.send(to("second", b"Subject: later\r\n\r\nlater\r\n"))
    assert server.connections == 1
    assert server.accepted[1].message["Subject"] == "later"


def test_closed_with_nothing_more_to_send() -> None:
    """No QUIT: the relay waits for a message, and would take it for the first line of one."""
    with Smtpd() as server:
        with connect(server) as connection:
            connection.send(FIRST, following=SECOND)
        with connect(server) as connection:
            connection.send(THIRD)
    assert recipients(server) == ["first", "third"]
    assert server.commands.count("QUIT") == 1


def test_not_over_the_end_of_a_connection() -> None:
    """One that is to be renewed is left as usual, with nothing offered."""
    with Smtpd() as server, connect(server, recycle_after=2) as connection:
        envelopes = [to(f"user{number}") for number in range(5)]
        for envelope, following in zip(envelopes, [*envelopes[1:], None], strict=True):
            assert connection.send(envelope, following=following).state is State.SENT
    assert recipients(server) == [f"user{number}" for number in range(5)]
    assert (server.connections, server.commands.count("QUIT"), server.commands.count("DATA")) == (3, 3, 5)


def test_only_what_the_relay_can_take(writes: list[bytes]) -> None:
    """Nothing ahead without PIPELINING, nor an address that needs SMTPUTF8 without that."""
    foreign = to("j\u00f6rg")
    for extensions, following in ((OLD, SECOND), (("PIPELINING",), foreign)):
        with Smtpd(extensions=extensions) as server, connect(server) as connection:
            assert connection.send(FIRST, following=following).state is State.SENT
        assert writes[-2:] == [FIRST.data + b".\r\n", b"QUIT\r\n"]


class HalfDeaf:
    """A socket that takes so many octets, a few at a time, and then breaks."""

    def __init__(self, takes: int, pause: float = 0.0) -> None:
        self.left = takes
        self.pause = pause

    def gettimeout(self) -> float:
        return 5.0

    def settimeout(self, _: float) -> None:
        """As a socket's."""

    def send(self, data: memoryview) -> int:
        if not self.left:
            raise BrokenPipeError
        sleep(self.pause)
        taken = min(len(data), self.left, 7)
        self.left -= taken
        return taken

    def close(self) -> None:
        """As a socket's."""


@pytest.mark.parametrize(("behind", "stage"), [(-1, Stage.DATA), (0, Stage.DOT), (3, Stage.DOT)])
def test_a_write_that_fails_behind_the_dot_leaves_doubt(behind: int, stage: Stage) -> None:
    """Before it the message is safe to send again."""
    dialogue = SmtpSession("relay.example.org", timeout=5.0, own_name="here")
    dialogue.sock = cast("socket.socket", HalfDeaf(len(FIRST.data) + len(b".\r\n") + behind))
    with pytest.raises(ConnectionLost) as lost:
        dialogue.message(FIRST.data, "MAIL FROM:<noreply@example.org>", timeout=5.0)
    assert lost.value.stage is stage


def test_a_relay_that_reads_drop_by_drop_has_so_long_for_the_whole_message() -> None:
    """Each write gets somewhere, and still the time is up."""
    dialogue = SmtpSession("relay.example.org", timeout=5.0, own_name="here")
    dialogue.sock = cast("socket.socket", HalfDeaf(1 << 20, pause=0.02))
    with pytest.raises(ConnectionLost, match="no answer in time") as lost:
        dialogue.message(b"x\r\n" * 10_000, timeout=0.1)
    assert lost.value.stage is Stage.DATA
