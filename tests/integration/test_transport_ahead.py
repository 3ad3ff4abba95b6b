"""The next message's commands behind the dot of this one: one wait a message, and every answer means what it meant."""

import select
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import trustme
from support.smtpd import Action, Script, Smtpd

from token_pipelines.config import Smtp
from token_pipelines.envelope import Envelope
from token_pipelines.model import Outcome, State
from token_pipelines.smtp.answers import Lost, RelayTroubleError
from token_pipelines.smtp.conversation import Step, Wants
from token_pipelines.smtp.lane import Lane
from token_pipelines.smtp.relay import TRIES, Relay

OLD = ("8BITMIME",)


def to(name: str, data: bytes = b"Subject: hello\r\n\r\nhello\r\n") -> Envelope:
    return Envelope(sender="noreply@example.org", recipient=f"{name}@example.org", data=data)


FIRST, SECOND, THIRD = to("first"), to("second"), to("third")


def relay(server: Smtpd, **changes: object) -> Relay:
    ordinary = {"host": "127.0.0.1", "port": server.port, "security": "none", "rate": None}
    short = {"timeout": "5s", "command_timeout": "1s", "dot_timeout": "1s"}
    return Relay(Smtp.model_validate({**ordinary, **short, **changes}))


class Sender:
    """Sends some messages over one connection after another, each offered behind the one before where that is asked."""

    def __init__(self, relay: Relay, envelopes: Sequence[Envelope], *, ahead: bool = True) -> None:
        self.told: list[object] = []
        self._relay = relay
        self._left = list(envelopes)
        self._ahead = ahead
        self._offered: list[Envelope] = []  # the present message, and perhaps the one that follows
        self._tries = 0

    def send(self) -> list[object]:
        """Send all; what became of each: an outcome, or the sentence of the trouble."""
        while self._left or self._offered:
            lane = self._relay.connect()
            self._left, self._offered = self._offered + self._left, []
            try:
                self._talk(lane)
                lane.quit()
            except Lost:
                lane.close()
            except RelayTroubleError as trouble:
                lane.close()
                self._tries += 1
                if not trouble.try_again or self._tries == TRIES:
                    self._conclude(str(trouble))
        return self.told

    def _talk(self, lane: Lane) -> None:
        step: Step | None = lane.resume()
        while step is not Wants.END:
            step = _awaited(lane) if step is None else lane.resume(self._answer(step))

    def _answer(self, step: Step) -> Envelope | None:
        if isinstance(step, Outcome):
            self._conclude(step)
        elif step is Wants.MARK:
            return self._offered[0]
        elif self._left and (step is Wants.MESSAGE or self._ahead):
            self._offered.append(self._left.pop(0))
            return self._offered[-1]
        return None

    def _conclude(self, what: object) -> None:
        self._tries = 0
        self.told.append(what)
        self._offered.pop(0)


def _awaited(lane: Lane) -> Step | None:
    ready = select.select([lane], [lane] if lane.has_unsaid else [], [], max(0.0, lane.due - time.monotonic()))
    return lane.hear() if any(ready) else lane.lose("no answer in time")


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
    """What a conversation says, write by write."""
    seen: list[bytes] = []
    say = Lane._say  # noqa: SLF001 -- what crosses the socket is not visible from outside

    def said(lane: Lane, octets: bytes) -> None:
        seen.append(octets)
        say(lane, octets)

    monkeypatch.setattr(Lane, "_say", said)
    return seen


def test_the_next_ones_commands_are_behind_the_dot_in_the_same_write(writes: list[bytes]) -> None:
    with Smtpd() as server:
        outcomes = Sender(relay(server), [FIRST, SECOND, THIRD]).send()
    assert [isinstance(one, Outcome) and one.state for one in outcomes] == [State.SENT] * 3
    said = {
        name: f"MAIL FROM:<noreply@example.org>\r\nRCPT TO:<{name}@example.org>\r\nDATA\r\n".encode()
        for name in ("first", "second", "third")
    }
    message = FIRST.data + b".\r\n"
    assert writes == [said["first"], message + said["second"], message + said["third"], message]
    assert recipients(server) == ["first", "second", "third"]
    assert (server.connections, server.commands.count("QUIT")) == (1, 1)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """A server's side of TLS, and the file that makes a client trust it."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context, path


ANSWERS = [
    *(Action(code=code, text=text) for code, text in ((450, "4.2.0 later"), (550, "5.1.1 no such user"), (552, "no"))),
    *(Action(code=code, text=text) for code, text in ((421, "4.3.2 closing"), (550, "5.7.1 policy"), (25, "what"))),
    *(Action(drop="before"), Action(drop="after"), Action(drop="answered"), Action(stall=1.5)),
]


@pytest.mark.parametrize("security", ["none", "tls"])
@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "dot"])
@pytest.mark.parametrize("action", ANSWERS, ids=lambda action: f"{action.code or action.drop or 'stall'}")
@pytest.mark.parametrize("turn", [1, 2])
def test_every_answer_means_the_same(
    stage: str, action: Action, turn: int, security: str, tls: tuple[ssl.SSLContext, Path]
) -> None:
    """To the message that is sent, and to the one that was heard of ahead: what is told and what is delivered."""
    context, ca_file = tls
    changes = {"security": security, "ca_file": ca_file} if security == "tls" else {}

    def told(*, ahead: bool) -> tuple[list[object], list[str]]:
        implicit_tls = context if security == "tls" else None
        with Smtpd(script=at_the(turn, stage, action), implicit_tls=implicit_tls) as server:
            outcomes = Sender(relay(server, **changes), [FIRST, SECOND, THIRD], ahead=ahead).send()
            return [_comparable(outcome, server) for outcome in outcomes], recipients(server)

    assert told(ahead=True) == told(ahead=False)


def _comparable(outcome: object, server: Smtpd) -> object:
    """Without what differs from server to server: its port, its queue ids."""
    if isinstance(outcome, Outcome):
        return outcome if outcome.queue_id is None else (outcome.state, outcome.stage, outcome.code)
    return str(outcome).replace(str(server.port), "PORT")


def test_not_over_the_end_of_a_connection() -> None:
    """One that is to be renewed is left as usual, with nothing offered."""
    with Smtpd() as server:
        Sender(relay(server, recycle_after=2), [to(f"user{number}") for number in range(5)]).send()
    assert recipients(server) == [f"user{number}" for number in range(5)]
    assert (server.connections, server.commands.count("QUIT"), server.commands.count("DATA")) == (3, 3, 5)


def test_only_what_the_relay_can_take(writes: list[bytes]) -> None:
    """Nothing ahead without PIPELINING, nor an address that needs SMTPUTF8 without that."""
    foreign = to("j\u00f6rg")
    for extensions, following, last in ((OLD, SECOND, b"DATA\r\n"), (("PIPELINING",), foreign, b"")):
        writes.clear()
        with Smtpd(extensions=extensions) as server:
            Sender(relay(server), [FIRST, following]).send()
        text = writes.index(FIRST.data + b".\r\n")
        assert (writes[-2] == last) if last else (text == len(writes) - 1)


class HalfDeaf:
    """A socket that takes a number of octets, a few at a time, and then breaks."""

    def __init__(self, takes: int) -> None:
        self.left = takes

    def settimeout(self, _: float) -> None:
        """As a socket's."""

    def send(self, data: bytes) -> int:
        if not self.left:
            raise BrokenPipeError
        taken = min(len(data), self.left, 7)
        self.left -= taken
        return taken


@pytest.mark.parametrize(
    ("behind", "told"), [(-1, "in trouble: connection lost at DATA"), (0, State.UNKNOWN), (3, State.UNKNOWN)]
)
def test_a_write_that_fails_behind_the_dot_leaves_doubt(behind: int, told: object) -> None:
    """Before it the message is safe to send again."""
    with Smtpd() as server:
        lane = relay(server).connect()
        step: Step | None = lane.resume()
        while step is not Wants.MARK:
            step = _awaited(lane) if step is None else lane.resume(FIRST)
        ours: socket.socket = lane._socket  # noqa: SLF001 -- a write that breaks at a certain octet
        lane._socket = HalfDeaf(len(FIRST.data) + len(b".\r\n") + behind)  # type: ignore[assignment] # noqa: SLF001
        assert lane.resume(FIRST) is Wants.FOLLOWING
        try:
            step = lane.resume(SECOND)
            assert isinstance(step, Outcome)
            assert step.state is told
        except RelayTroubleError as trouble:
            assert str(told) in str(trouble)  # noqa: PT017 -- one of two ways
        finally:
            lane._socket = ours  # noqa: SLF001 -- as above
            lane.close()


def test_a_relay_that_does_not_read_has_so_long_for_the_whole_message() -> None:
    """The socket's buffers fill, and then the time is up."""
    large = to("large", b"x" * 998 * 30_000 + b"\r\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = Smtp.model_validate(
            {"host": "127.0.0.1", "port": listener.getsockname()[1], "security": "none", "dot_timeout": "1s"}
        )

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                for answer in (b"220 here\r\n", b"250-here\r\n250 PIPELINING\r\n", b"250 ok\r\n250 ok\r\n354 go\r\n"):
                    peer.sendall(answer)
                    peer.recv(4096)
                done.wait(20)

        done = threading.Event()
        thread = threading.Thread(target=serve)
        thread.start()
        (told,) = Sender(Relay(config), [large]).send()
        done.set()
        thread.join(10)
    assert "in trouble: no answer in time at DATA" in str(told)
