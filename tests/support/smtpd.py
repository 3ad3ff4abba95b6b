"""A real SMTP server on loopback for tests. It answers as SMTP does, or misbehaves as its script says.

    def script(stage, argument):
        return Action(code=450, text="4.2.0 later") if stage == "rcpt" else None

    with Smtpd(script=script) as server:
        ...  # server.port, server.accepted, server.commands

A message counts as accepted when 250 was decided at its final dot, whether or not the client heard it. Not a mail
server: it relays nothing, and forgets everything at exit.
"""

import asyncio
import base64
import email
import email.policy
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from types import TracebackType
from typing import Final, Literal, Self

EXTENSIONS = ("PIPELINING", "SIZE 52428800", "8BITMIME", "ENHANCEDSTATUSCODES", "SMTPUTF8", "DSN")
"""What EHLO offers when the test does not say. A test module may set it for all its servers."""

MAX_STALL: Final = 10.0  # seconds; a forgotten stall must not hang the tests
_PATIENCE: Final = 10.0  # seconds to start and to stop
_IDLE: Final = 60.0  # seconds that a connection may say nothing
_LINE_LIMIT: Final = 1 << 20
_DATA_LIMIT: Final = 50 << 20


@dataclass(frozen=True, kw_only=True)
class Action:
    """What to do at a stage instead of the ordinary answer.

    ``code`` and ``text`` replace the answer, and a code other than the ordinary one refuses. ``drop`` ends the
    connection: ``before`` anything is processed, ``after`` it was processed but without an answer, or once
    ``answered``. ``stall`` is the seconds between processing and answering. ``drip`` is the seconds before each
    octet of the answer; an ``endless`` one goes on for lines until the client hangs up.
    """

    code: int | None = None
    text: str = "as the test told me"
    drop: Literal["before", "after", "answered"] | None = None
    stall: float = 0.0
    drip: float = 0.0
    endless: bool = False


Script = Callable[[str, str], Action | None]
"""Asked with the stage (connect, ehlo, starttls, auth, mail, rcpt, data, dot, rset, quit) and its argument."""


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """One message for one recipient, as it crossed the wire, without the dot-stuffing."""

    sender: str
    recipient: str
    data: bytes
    at: datetime

    @property
    def message(self) -> EmailMessage:
        """The message, parsed by the standard library."""
        return email.message_from_bytes(self.data, policy=email.policy.default)


def times(count: int, stage: str, action: Action) -> Script:
    """A script that acts the first ``count`` times that ``stage`` is reached."""
    left = [count]

    def script(reached: str, _argument: str) -> Action | None:
        if reached != stage or left[0] == 0:
            return None
        left[0] -= 1
        return action

    return script


class Smtpd:
    """The server: ``with Smtpd() as server``. All its properties may be read from any thread."""

    def __init__(
        self,
        *,
        script: Script | None = None,
        extensions: Sequence[str] | None = None,
        starttls: ssl.SSLContext | None = None,
        implicit_tls: ssl.SSLContext | None = None,
        credentials: Mapping[str, str] | None = None,
        data_without_recipients: bool = False,
    ) -> None:
        """``credentials`` maps users to passwords, and makes a login necessary.

        With ``data_without_recipients`` DATA is answered with 354 although every recipient was refused, as RFC 2920
        allows; only the message is then refused.
        """
        self._script: Script = script or (lambda _stage, _argument: None)
        self.extensions = EXTENSIONS if extensions is None else tuple(extensions)
        self.data_without_recipients = data_without_recipients
        self.starttls = starttls
        self._implicit_tls = implicit_tls
        self.credentials = credentials
        self._lock = threading.Lock()
        self._accepted: list[Accepted] = []
        self._commands: list[str] = []
        self._connections = 0
        self._script_error: BaseException | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="smtpd", daemon=True)
        self.port = 0

    def __enter__(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self._thread.start()
        if not self._started.wait(_PATIENCE):
            msg = "smtpd did not start"
            raise RuntimeError(msg)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every connection; a fault in the script comes out here."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_PATIENCE)
        if self._script_error is not None and error is None:
            raise self._script_error

    @property
    def accepted(self) -> list[Accepted]:
        """What was accepted so far, in order."""
        with self._lock:
            return list(self._accepted)

    @property
    def commands(self) -> list[str]:
        """Every command line heard so far, over all connections; what a client says inside AUTH is left out."""
        with self._lock:
            return list(self._commands)

    @property
    def connections(self) -> int:
        """How many connections were made so far."""
        with self._lock:
            return self._connections

    def accept(self, messages: Sequence[Accepted]) -> None:
        """Count these as accepted."""
        with self._lock:
            self._accepted.extend(messages)

    def heard(self, line: str) -> None:
        """Note a command."""
        with self._lock:
            self._commands.append(line)

    def told(self, stage: str, argument: str) -> Action:
        """What the script wants here."""
        try:
            return self._script(stage, argument) or Action()
        except BaseException as error:  # kept for the test, whose fault it is
            self._script_error = error
            raise

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, ssl=self._implicit_tls, limit=_LINE_LIMIT, backlog=256
        )
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()  # asyncio.run cancels the connections that are left

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with self._lock:
            self._connections += 1
        session = _Session(self, reader, writer, encrypted=self._implicit_tls is not None)
        try:
            with suppress(_Dropped, OSError, EOFError, TimeoutError, asyncio.CancelledError, asyncio.LimitOverrunError):
                await session.run()
        finally:
            writer.transport.abort() if session.dropped else writer.close()


class _Dropped(Exception):  # noqa: N818 -- not an error: the script said so
    """The connection is to end now."""


class _Session:
    """One connection's dialogue."""

    def __init__(
        self, server: Smtpd, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, encrypted: bool
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._encrypted = encrypted
        self._logged_in = server.credentials is None
        self._sender: str | None = None
        self._recipients: list[str] = []
        self.dropped = False

    async def run(self) -> None:  # noqa: C901 -- the command table
        """Greet, then answer line by line until QUIT."""
        await self._answer("connect", "", 220, "smtpd.test ESMTP")
        while line := (await self._line()).decode("utf-8", "surrogateescape"):
            self._server.heard(line.rstrip("\r\n"))
            verb, _, argument = line.strip().partition(" ")
            match verb.upper():
                case "EHLO" | "HELO":
                    await self._ehlo(argument, extended=verb.upper() == "EHLO")
                case "STARTTLS" if self._server.starttls is not None and not self._encrypted:
                    await self._starttls()
                case "AUTH" if self._server.credentials is not None:
                    await self._auth(argument)
                case "MAIL" | "RCPT" if not self._logged_in:
                    await self._say(530, "5.7.0 log in first")
                case "MAIL":
                    await self._mail(_path(argument))
                case "RCPT" if self._sender is not None:
                    await self._rcpt(_path(argument))
                case "DATA" if self._recipients or self._server.data_without_recipients:
                    await self._data()
                case "RSET":
                    self._forget()
                    await self._answer("rset", "", 250, "2.0.0 forgotten")
                case "NOOP":
                    await self._say(250, "2.0.0 nothing done")
                case "QUIT":
                    await self._answer("quit", "", 221, "2.0.0 goodbye")
                    return
                case _:
                    await self._say(503, f"5.5.1 not now: {verb[:20]}")

    async def _ehlo(self, argument: str, *, extended: bool) -> None:
        self._forget()
        offered = list(self._server.extensions) if extended else []
        if extended and self._server.starttls is not None and not self._encrypted:
            offered.append("STARTTLS")
        if extended and self._server.credentials is not None:
            offered.append("AUTH PLAIN LOGIN")
        await self._answer("ehlo", argument, 250, "\n".join(["smtpd.test", *offered]))

    async def _starttls(self) -> None:
        if await self._answer("starttls", "", 220, "2.0.0 go ahead") and self._server.starttls is not None:
            await self._writer.start_tls(self._server.starttls, ssl_handshake_timeout=_PATIENCE)
            self._encrypted = True

    async def _auth(self, argument: str) -> None:
        method, _, initial = argument.partition(" ")
        if method.upper() == "PLAIN":
            secret = initial or await self._ask("")
            _, user, password = base64.b64decode(secret).decode().split("\0")
        else:
            user = base64.b64decode(initial or await self._ask("Username:")).decode()
            password = base64.b64decode(await self._ask("Password:")).decode()
        right = (self._server.credentials or {}).get(user) == password
        ordinary = (235, "2.7.0 welcome") if right else (535, "5.7.8 wrong user or password")
        self._logged_in = await self._answer("auth", user, *ordinary)

    async def _ask(self, challenge: str) -> str:
        await self._say(334, base64.b64encode(challenge.encode()).decode())
        return (await self._line()).decode().strip()

    async def _mail(self, address: str) -> None:
        self._forget()
        if await self._answer("mail", address, 250, "2.1.0 sender ok"):
            self._sender = address

    async def _rcpt(self, address: str) -> None:
        if await self._answer("rcpt", address, 250, "2.1.5 recipient ok"):
            self._recipients.append(address)

    async def _data(self) -> None:
        if not await self._answer("data", "", 354, "end with a dot"):
            return
        lines: list[bytes] = []
        size = 0
        while (line := await self._line()) != b".\r\n":
            size += len(line)
            if not line or size > _DATA_LIMIT:
                raise _Dropped
            lines.append(line.removeprefix(b"."))
        at = datetime.now(UTC)
        messages = [
            Accepted(sender=self._sender or "", recipient=recipient, data=b"".join(lines), at=at)
            for recipient in self._recipients
        ]
        argument = ",".join(self._recipients)
        self._forget()
        answer = (250, f"2.0.0 Ok: queued as Q{at:%H%M%S%f}") if messages else (554, "5.5.1 no valid recipients")
        await self._answer("dot", argument, *answer, lambda: self._server.accept(messages))

    async def _answer(
        self, stage: str, argument: str, code: int, text: str, process: Callable[[], None] = lambda: None
    ) -> bool:
        """Ask the script, process, answer. True when the answer was the ordinary one."""
        action = self._server.told(stage, argument)
        if action.drop == "before":
            self._drop()
        ordinary = action.code is None or action.code == code
        if ordinary:
            process()
        await asyncio.sleep(min(action.stall, MAX_STALL))
        if action.drop == "after":
            self._drop()
        await self._say(action.code or code, text if action.code is None else action.text, action)
        if action.drop == "answered":
            self._drop()
        return ordinary

    def _drop(self) -> None:
        self.dropped = True
        raise _Dropped

    async def _say(self, code: int, text: str, manner: Action | None = None) -> None:
        *more, last = text.split("\n")
        reply = "".join(f"{code}-{line}\r\n" for line in more) + f"{code} {last}\r\n"
        while manner is not None and manner.endless:
            self._writer.write(f"{code}-{last}\r\n".encode() * 100)
            await self._writer.drain()
        if manner is not None and manner.drip:
            for character in reply:
                await asyncio.sleep(min(manner.drip, MAX_STALL))
                self._writer.write(character.encode())
        else:
            self._writer.write(reply.encode())
        await self._writer.drain()

    async def _line(self) -> bytes:
        return await asyncio.wait_for(self._reader.readline(), _IDLE)

    def _forget(self) -> None:
        self._sender = None
        self._recipients = []


def _path(argument: str) -> str:
    """The address of ``FROM:<a@b.example> SIZE=1``."""
    return argument.partition("<")[2].partition(">")[0]
