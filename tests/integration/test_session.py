"""Opening a session with a relay: what can fail, the sentence that says so, and whether waiting may help."""

import base64
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from support.smtpd import Action, Script, Smtpd, times

from token_pipelines.config import Smtp
from token_pipelines.envelope import Envelope
from token_pipelines.errors import ConfigError, RelayError
from token_pipelines.model import Outcome, State
from token_pipelines.smtp import connecting as session
from token_pipelines.smtp.relay import Relay

ENVELOPE = Envelope(sender="noreply@example.org", recipient="ada@example.org", data=b"Subject: hello\r\n\r\nhello\r\n")
LOGIN = {"username": "mailer-login", "password": "s3cret-word"}
STARTTLS = {"security": "starttls"}
TLS = {"security": "tls"}
BRIEF = {"timeout": 0.3}

ASK = "ask its operator whether this machine may use it"
OFFER = "set smtp.security to tls if this port speaks TLS at once, or ask its operator for STARTTLS"
CLOSING = "wait until it takes connections again, or look at its log"
LOG = "look at its log"
PASSWORD = "check smtp.username and TOKEN_PIPELINES__SMTP__PASSWORD"
PORT = "check smtp.port and smtp.security, and its log"
PORTS = "check smtp.port against smtp.security (587 is starttls, 465 is tls)"
WAIT = "wait until it takes connections, or ask its operator"


def smtp(port: int, **changes: object) -> Smtp:
    ordinary = {"host": "127.0.0.1", "port": port, "security": "none", "rate": None}
    return Smtp.model_validate({**ordinary, "timeout": "5s", "command_timeout": "5s", **changes})


def connect(server: Smtpd, **changes: object) -> "closing[Relay]":
    return closing(Relay(smtp(server.port, **changes)))


def why_not(port: int, **changes: object) -> tuple[str, bool]:
    """What is said of the relay, and whether it may pass."""
    config = smtp(port, **changes)
    with pytest.raises(RelayError) as caught:
        Relay(config).connect()
    before = f"The relay {config.host}:{port} "
    sentence = str(caught.value)
    assert sentence.startswith(before)
    return sentence.removeprefix(before), caught.value.may_pass


def always(stage: str, **what: Any) -> Script:  # noqa: ANN401 -- an action's keywords
    return times(99, stage, Action(**what))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_connect_tls_verified(security: str, tls: ssl.SSLContext, ca_file: Path) -> None:
    """A certificate of an authority that we were given is good for both kinds."""
    with (
        Smtpd(**{{"starttls": "starttls", "tls": "implicit_tls"}[security]: tls}) as server,  # type: ignore[arg-type]
        connect(server, security=security, ca_file=ca_file, recycle_after=1) as connection,
    ):
        for _ in range(2):
            assert connection.send(ENVELOPE).state is State.SENT
    assert len(server.accepted) == 2
    if security == "starttls":
        assert [line.split()[0].upper() for line in server.commands[:3]] == ["EHLO", "STARTTLS", "EHLO"]


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("fault", ["authority", "name"])
def test_connect_tls_unverified(
    security: str, fault: str, authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    """An unknown authority or another name: nothing is said to such a relay."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1" if fault == "authority" else "mail.example.org").configure_cert(context)
    if fault == "authority":
        ca_file = tmp_path / "other.pem"
        trustme.CA().cert_pem.write_to_path(str(ca_file))
    with Smtpd(**{{"starttls": "starttls", "tls": "implicit_tls"}[security]: context}) as server:  # type: ignore[arg-type]
        with pytest.raises(
            RelayError, match=r"shows a certificate that cannot be verified \(.+\); set smtp\.host"
        ) as caught:
            Relay(smtp(server.port, security=security, ca_file=ca_file)).connect()
        assert not caught.value.may_pass
        with pytest.raises(RelayError, match=r"cannot be verified"):  # the system's authorities by default
            Relay(smtp(server.port, security=security)).connect()
    assert not any(line.startswith(("MAIL", "AUTH")) for line in server.commands)


@pytest.mark.parametrize("username", ["ada", "noreply@example.org"])
def test_connect_login(username: str, tls: ssl.SSLContext, ca_file: Path) -> None:
    """The right password over TLS, and over loopback without it."""
    credentials = {username: "s3cret"}
    login = {"username": username, "password": "s3cret"}
    with Smtpd(starttls=tls, credentials=credentials) as server:
        with connect(server, security="starttls", ca_file=ca_file, **login) as connection:
            assert connection.send(ENVELOPE).state is State.SENT
        with connect(server, **login) as connection:
            assert connection.send(ENVELOPE).state is State.SENT
    assert len(server.accepted) == 2


def test_connect_ehlo_unknown() -> None:
    """A very old relay gets HELO."""
    with Smtpd(script=times(1, "ehlo", Action(code=502, text="what?"))) as server, connect(server) as connection:
        assert connection.send(ENVELOPE).state is State.SENT
    assert [line.split()[0].upper() for line in server.commands[:2]] == ["EHLO", "HELO"]


@pytest.mark.parametrize(
    ("script", "changes", "said", "may_pass"),
    [
        # The greeting
        (always("connect", code=421, text="4.3.2 busy"), {}, f"greeted us with 421 4.3.2 busy; {WAIT}.", True),
        (always("connect", code=554, text="5.7.1 no"), {}, f"greeted us with 554 5.7.1 no; {WAIT}.", False),
        (always("connect", drop="before"), {}, f"gave no answer to CONNECT (connection lost); {PORT}.", True),
        (always("connect", stall=1), BRIEF, f"gave no answer to CONNECT (no answer in time); {PORT}.", True),
        (always("connect", drip=0.05), BRIEF, f"gave no answer to CONNECT (no answer in time); {PORT}.", True),
        (always("connect", endless=True), {}, f"gave no answer to CONNECT (endless answer); {PORT}.", True),
        # EHLO
        (always("ehlo", code=450, text="4.7.1 who?"), {}, f"answered 450 4.7.1 who? to EHLO; {ASK}.", True),
        (always("ehlo", code=550, text="5.7.1 go away"), {}, f"answered 550 5.7.1 go away to EHLO; {ASK}.", False),
        (always("ehlo", code=421, text="4.3.2 closing"), {}, f"answered 421 4.3.2 closing to EHLO; {CLOSING}.", True),
        (always("ehlo", code=550, text="no", drop="answered"), {}, f"answered 550 no to EHLO; {ASK}.", False),
        (always("ehlo", drop="before"), {}, f"gave no answer to EHLO (connection lost); {LOG}.", True),
        (always("ehlo", stall=1), BRIEF, f"gave no answer to EHLO (no answer in time); {LOG}.", True),
        (always("ehlo", drip=0.05), BRIEF, f"gave no answer to EHLO (no answer in time); {LOG}.", True),
        (always("ehlo", endless=True), {}, f"gave no answer to EHLO (endless answer); {LOG}.", True),
        # STARTTLS
        (
            always("starttls", code=454, text="4.7.0 TLS not available"),
            STARTTLS,
            f"answered 454 4.7.0 TLS not available to STARTTLS; {LOG}, and at its certificate.",
            True,
        ),
        (
            always("starttls", code=554, text="5.7.0 no"),
            STARTTLS,
            f"answered 554 5.7.0 no to STARTTLS; {LOG}, and at its certificate.",
            False,
        ),
        (always("starttls", code=421, text="bye"), STARTTLS, f"answered 421 bye to STARTTLS; {CLOSING}.", True),
        (
            always("starttls", drop="before"),
            STARTTLS,
            f"gave no answer to STARTTLS (connection lost); {LOG}.",
            True,
        ),
        # AUTH
        (None, LOGIN, f"refused the login with 535 5.7.8 wrong user or password; {PASSWORD}.", False),
        (
            always("auth", code=535, text="5.7.8 no: mailer-login"),
            LOGIN,
            f"refused the login with 535 5.7.8 no: <address>; {PASSWORD}.",
            False,
        ),
        (
            always("auth", code=501, text="5.5.4 AG1haWxlci1sb2dpbgBzM2NyZXQtd29yZA=="),
            LOGIN,
            f"refused the login with 501 5.5.4 <login>; {PASSWORD}.",
            False,
        ),
        (
            always("auth", code=535, text="5.7.8 no", drop="answered"),
            LOGIN,
            f"refused the login with 535 5.7.8 no; {PASSWORD}.",
            False,
        ),
        (
            always("auth", code=454, text="4.7.0 no directory"),
            LOGIN,
            "answered 454 4.7.0 no directory to AUTH; wait until it can check logins again, or look at its log.",
            True,
        ),
        (
            always("auth", code=421, text="4.3.2 closing"),
            LOGIN,
            f"answered 421 4.3.2 closing to AUTH; {CLOSING}.",
            True,
        ),
        (
            always("auth", code=421, text="4.3.2 closing", drop="answered"),
            LOGIN,
            f"answered 421 4.3.2 closing to AUTH; {CLOSING}.",
            True,
        ),
        (always("auth", drop="before"), LOGIN, f"gave no answer to AUTH (connection lost); {LOG}.", True),
        (
            None,
            {"username": "ada", "password": "pässword"},
            "takes only ASCII in a login; choose a username and password in ASCII.",
            False,
        ),
    ],
)
def test_connect_refused_at_each_step(
    script: Script | None, changes: dict[str, object], said: str, tls: ssl.SSLContext, *, may_pass: bool
) -> None:
    """The login and the password are never repeated, in any form."""
    credentials = {"ada": "pässword"} if "username" in changes else None
    starttls = tls if changes.get("security") == "starttls" else None
    with Smtpd(script=script, credentials=credentials, starttls=starttls) as server:
        assert why_not(server.port, **changes) == (said, may_pass)
    assert not any(line.startswith("MAIL") for line in server.commands)


def test_connect_closing_at_auth_is_not_asked_again() -> None:
    """The next method would only be asked of nobody."""
    with Smtpd(script=always("auth", code=421, text="4.3.2 closing"), credentials={"ada": "x"}) as server:
        why_not(server.port, **LOGIN)
    assert [line.split()[0].upper() for line in server.commands] == ["EHLO", "AUTH"]


@pytest.mark.parametrize(
    ("extensions", "changes", "said"),
    [
        (
            (),
            STARTTLS,
            f"does not offer STARTTLS; {OFFER}.",
        ),
        (
            (),
            LOGIN,
            "does not offer AUTH; remove smtp.username, or use the port that takes logins (587 or 465).",
        ),
        (
            ("AUTH XOAUTH2",),
            LOGIN,
            "offers no way to log in that we know; ask its operator for PLAIN, LOGIN or CRAM-MD5.",
        ),
    ],
)
def test_connect_not_offered(extensions: tuple[str, ...], changes: dict[str, object], said: str) -> None:
    """Never falls back to less, and waiting does not help."""
    with Smtpd(extensions=extensions) as server:
        assert why_not(server.port, **changes) == (said, False)
    assert not any(line.startswith("MAIL") for line in server.commands)


def test_connect_tls_to_a_plain_port(ca_file: Path) -> None:
    """The two kinds mixed up."""
    with Smtpd() as server:
        sentence, may_pass = why_not(server.port, **TLS, ca_file=ca_file)
    assert re.sub(r"\(\w+\); ", "; ", sentence) == f"does not speak TLS here ; {PORTS}."  # OpenSSL's own word for it
    assert not may_pass


def test_connect_login_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name for this machine that leads elsewhere; loopback is all that a test has, so it is told otherwise."""
    monkeypatch.setattr(session, "_loopback", lambda _: False)
    with Smtpd(credentials={"ada": "x"}) as server:
        said = "would get the password in the clear; set smtp.security to starttls or tls."
        assert why_not(server.port, **LOGIN) == (said, False)
    assert not any(line.startswith("AUTH") for line in server.commands)


@contextmanager
def answering(*answers: bytes, reset: bool = False) -> Iterator[int]:
    """A port that says each of these, waits for something after each, and then ends the connection, or breaks it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                for answer in answers:
                    peer.sendall(answer)
                    peer.recv(4096)
                if reset:
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                else:
                    peer.shutdown(socket.SHUT_WR)
                    peer.settimeout(5)
                    while peer.recv(4096):
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


GREETED = (b"220 here\r\n", b"250-here\r\n250 STARTTLS\r\n", b"220 go ahead\r\n")
CLOSE_NOTIFY = b"\x15\x03\x03\x00\x02\x01\x00"  # what a TLS server says that has no more to say


@pytest.mark.parametrize(
    ("answers", "reset", "changes", "said"),
    [
        (GREETED, False, STARTTLS, f"hung up in the TLS handshake; {LOG}, and {PORTS}."),
        ((*GREETED, CLOSE_NOTIFY), False, STARTTLS, f"hung up in the TLS handshake; {LOG}, and {PORTS}."),
        (GREETED, True, STARTTLS, f"gave no answer to STARTTLS (connection lost); {LOG}."),
        ((b"",), False, TLS, f"hung up in the TLS handshake; {LOG}, and {PORTS}."),
        ((b"", CLOSE_NOTIFY), False, TLS, f"hung up in the TLS handshake; {LOG}, and {PORTS}."),
        (
            (b"",),
            True,
            TLS,
            "cannot be reached (Connection reset by peer); check smtp.host and the network.",
        ),
    ],
    ids=["starttls-eof", "starttls-closed", "starttls-reset", "tls-eof", "tls-closed", "tls-reset"],
)
def test_connect_tls_handshake_ends(
    answers: tuple[bytes, ...], changes: dict[str, object], said: str, *, reset: bool
) -> None:
    """So does a relay that restarts, or has too much to do: it may pass."""
    with answering(*answers, reset=reset) as port:
        assert why_not(port, **changes) == (said, True)


def test_connect_not_smtp() -> None:
    """Some other service."""
    with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert why_not(port) == ("does not speak SMTP; check smtp.port.", False)


def test_connect_login_challenge_without_sense() -> None:
    """No base64: neither a fault of ours nor one that passes."""
    with answering(GREETED[0], b"250-here\r\n250 AUTH LOGIN\r\n", b"334 x\r\n") as port:
        said = "offers no way to log in that we know; ask its operator for PLAIN, LOGIN or CRAM-MD5."
        assert why_not(port, **LOGIN) == (said, False)


@pytest.mark.parametrize("answers", [(GREETED[0], b"hello\r\n"), (*GREETED[:2], b"hello\r\n")])
def test_connect_answer_without_sense(answers: tuple[bytes, ...]) -> None:
    """What is no SMTP reply is no answer."""
    stage = ("EHLO", "STARTTLS")[len(answers) - 2]
    with answering(*answers) as port:
        assert why_not(port, security="starttls") == (f"gave no answer to {stage} (connection lost); {LOG}.", True)


def test_connect_answers_before_tls_are_forgotten(tls: ssl.SSLContext, ca_file: Path) -> None:
    """What somebody in between puts behind the answer to STARTTLS is not heard as if it had come through TLS."""
    forged = b"250-forged\r\n250 AUTH PLAIN\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            plain, _ = listener.accept()
            for answer in (*GREETED[:2], GREETED[2] + forged):
                plain.sendall(answer)
                if not answer.endswith(forged):
                    plain.recv(4096)
            with tls.wrap_socket(plain, server_side=True) as peer:
                peer.recv(4096)
                peer.sendall(b"250 the relay itself\r\n")
                peer.recv(4096)

        thread = threading.Thread(target=serve)
        thread.start()
        sentence, _ = why_not(listener.getsockname()[1], **STARTTLS, **LOGIN, ca_file=ca_file)
        thread.join(10)
    assert sentence.startswith("does not offer AUTH")


def test_connect_plain_to_a_tls_port(tls: ssl.SSLContext) -> None:
    """The other way round: both sides wait, until the time is up."""
    with Smtpd(implicit_tls=tls) as server:
        said = f"gave no answer to CONNECT (no answer in time); {PORT}."
        assert why_not(server.port, security="starttls", timeout=0.3) == (said, True)


def test_connect_refused(closed_port: int) -> None:
    """Nobody listens."""
    assert why_not(closed_port) == ("refuses connections; check smtp.port, and that the relay runs.", True)


def test_connect_not_answered() -> None:
    """As behind a firewall: a full backlog takes no connection."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)  # noqa: FBT003 -- the standard library's
            one.connect_ex(("127.0.0.1", port))
        said = "did not answer in time; check smtp.host, smtp.port and the firewall."
        assert why_not(port, timeout=0.3) == (said, True)
        for one in waiting:
            one.close()


def refusing(error: OSError) -> Callable[..., Any]:
    """In place of the resolver: on loopback there is none that could fail."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "said", "may_pass"),
    [
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "is not known to the resolver; check smtp.host.",
            False,
        ),
        (
            socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
            "cannot be looked up, since the resolver did not answer; check the DNS of this machine, and smtp.host.",
            True,
        ),
        (
            OSError(113, "No route to host"),
            "cannot be reached (No route to host); check smtp.host and the network.",
            True,
        ),
    ],
)
def test_connect_unreachable(error: OSError, said: str, monkeypatch: pytest.MonkeyPatch, *, may_pass: bool) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", refusing(error))
    assert why_not(25, host="relay.example.org") == (said, may_pass)


def test_connect_name_that_cannot_be_looked_up() -> None:
    """The resolver is not even asked: a label of a name has 63 characters at most."""
    assert why_not(25, host=f"{'x' * 64}.example") == ("is not known to the resolver; check smtp.host.", False)


@pytest.mark.parametrize("action", [Action(stall=9), Action(drip=0.5)])
def test_close_quit_never_answered(action: Action) -> None:
    """Two seconds are enough for a courtesy, whatever the other timeouts are."""
    with Smtpd(script=times(1, "quit", action)) as server:
        connection = Relay(smtp(server.port, command_timeout="1m", dot_timeout="1m"))
        assert connection.send(ENVELOPE).state is State.SENT
        began = time.monotonic()
        connection.close()
        assert time.monotonic() - began < 5
        assert connection.send(ENVELOPE).state is State.SENT
        connection.close()
    assert (server.connections, len(server.accepted)) == (2, 2)


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_relay_faulty_ca_file(content: str | None, tmp_path: Path) -> None:
    """Found before anything is sent."""
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"smtp\.ca_file .*ca\.pem cannot be read as certificates"):
        Relay(smtp(25, security="tls", ca_file=path))


ECHOED = {
    "as it is": "{password}",
    "as AUTH PLAIN": "{plain}",
    "as AUTH LOGIN": "{login}",
    "in a command": "x{password}y",
}


@pytest.mark.parametrize("password", ["s3cret-word", "@s3cret-word", "unknown", "User"])
@pytest.mark.parametrize("echo", ECHOED.values(), ids=ECHOED)
@pytest.mark.parametrize(
    ("stage", "code"),
    [
        ("auth", 535),
        ("auth", 454),
        ("mail", 550),
        ("rcpt", 550),
        ("rcpt", 450),
        ("data", 550),
        ("dot", 250),
        ("dot", 550),
    ],
)
def test_login_that_the_relay_repeats_is_kept_nowhere(stage: str, code: int, echo: str, password: str) -> None:
    """At no stage and in no form; not as a queue id either. A word, or an @ in front, makes no difference."""
    plain = base64.b64encode(f"\0mailer\0{password}".encode()).decode()
    login = base64.b64encode(password.encode()).decode()
    said = echo.format(password=password, plain=plain, login=login)
    action = Action(code=code, text=f"{code // 100}.0.0 what is {said}, queued as {said}")
    script = times(9, stage, action)
    with (
        Smtpd(script=script, credentials={"mailer": password}) as server,
        connect(server, username="mailer", password=password) as relay,
    ):
        try:
            outcome: Outcome | RelayError = relay.send(ENVELOPE)
        except RelayError as error:
            outcome = error
    left = str(outcome) + repr(getattr(outcome, "outcome", None))
    words = left.replace("TOKEN_PIPELINES__SMTP__PASSWORD", "").replace("smtp.username", "")
    for part in (password, plain, login.rstrip("=")):
        assert part not in words
