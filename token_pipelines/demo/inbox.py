"""A local inbox: an SMTP server that keeps each message as a file, and pages to look at them.

Nothing leaves the machine. It accepts every message without a login. For a relay that misbehaves, see the tests' own.
"""

import re
import socket
from pathlib import Path
from typing import Any, Self

from token_pipelines.demo.inbox_pages import write_index
from token_pipelines.errors import DemoError

try:
    from aiosmtpd.controller import Controller
    from aiosmtpd.smtp import SMTP, Envelope, Session
except ModuleNotFoundError:
    msg = "The demo's inbox is not installed; install token-pipelines[demo]."
    raise DemoError(msg) from None

__all__ = ["Inbox", "write_index"]

NUMBERED = re.compile(r"(\d+)-.*\.eml(\.half)?")
NAME_LENGTH = 64  # of the recipient's part in a file's name


class Inbox:
    """An SMTP server on loopback that keeps what it accepts as ``<NNNNN>-<recipient>.eml`` in ``folder``."""

    def __init__(self, folder: Path, host: str = "127.0.0.1", port: int = 0) -> None:
        """Port 0 takes a free one; ``port`` names it once started. Nothing is touched before ``start``."""
        self.folder = folder
        self.host = host
        self.port = port
        self._wanted_port = port
        self._controller: _Controller | None = None

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def start(self) -> None:
        """Listen. Messages are numbered on from the last one in the folder.

        Raises:
            DemoError: if the port or the folder cannot be used.
        """
        if self._controller is not None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            listener = socket.create_server((self.host, self._wanted_port))
        except OSError as error:
            msg = f"The inbox cannot listen on {self.host}:{self._wanted_port} ({error}); choose another port."
            raise DemoError(msg) from error
        self.port = listener.getsockname()[1]
        self._controller = _Controller(_Keeper(self.folder), listener)
        self._controller.start()

    def stop(self) -> None:
        """Stop listening; accepted messages stay in the folder."""
        controller, self._controller = self._controller, None
        if controller is not None:
            controller.stop()


class _Controller(Controller):
    """Uses a socket that listens already: aiosmtpd cannot start on port 0, and a port found free may be taken."""

    def __init__(self, keeper: "_Keeper", listener: socket.socket) -> None:
        host, port = listener.getsockname()[:2]
        self._listener = listener
        super().__init__(keeper, hostname=host, port=port)

    def _create_server(self) -> Any:  # noqa: ANN401 -- aiosmtpd's hook
        return self.loop.create_server(self._factory_invoker, sock=self._listener)


class _Keeper:
    """aiosmtpd's handler: it answers 250 only when the message is a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        numbers = (NUMBERED.fullmatch(path.name) for path in folder.iterdir())
        self._last = max((int(match[1]) for match in numbers if match), default=0)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep a message in one file, named after its first recipient."""
        self._last += 1
        recipient = re.sub(r"[^A-Za-z0-9@._+-]", "_", envelope.rcpt_tos[0])[:NAME_LENGTH]
        name = f"{self._last:05d}-{recipient}"
        content = envelope.content
        data = content if isinstance(content, bytes) else str(content).encode()
        try:
            _write_whole(self._folder / f"{name}.eml", data)
        except OSError as error:
            return f"451 4.3.0 Cannot keep the message: {error.strerror}"
        return f"250 2.0.0 Ok: queued as {self._last:05d}"


def _write_whole(path: Path, data: bytes) -> None:
    half = path.with_name(f"{path.name}.half")
    half.write_bytes(data)
    half.rename(path)
