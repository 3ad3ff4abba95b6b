"""The servers of the measurements: Postfix's ``smtp-sink`` and ``smtp-source``, and a proxy that adds a delay.

Every process that is started here is ended here, by its process id.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from pathlib import Path

PATIENCE_S = 10.0
CHUNK = 1 << 16


class MissingProgram(Exception):  # noqa: N818 -- the message is for the person who runs the bench
    """A program that a measurement needs is not installed."""


def find(program: str) -> str:
    """The path of one of Postfix's programs. Debian keeps them outside an ordinary user's PATH.

    Raises:
        MissingProgram: with the cure.
    """
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/libexec/postfix")
    if found is None:
        msg = f"{program} is missing; install Postfix (on Debian and Ubuntu: apt-get install postfix)."
        raise MissingProgram(msg)
    return found


def free_port() -> int:
    """A free port of 127.0.0.1."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def sink(*, pipelining: bool = True) -> Iterator[int]:
    """An SMTP server that accepts every message and stores none; yields its port."""
    port = free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    quiet = [] if pipelining else ["-p"]
    process = subprocess.Popen(
        [find("smtp-sink"), *user, *quiet, f"127.0.0.1:{port}", "1000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
    )
    try:
        _await_listener(port)
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def seconds_of_smtp_source(port: int, *, sessions: int, messages: int, size: int) -> float:
    """Seconds that Postfix's own client needs for these messages over persistent sessions."""
    command = [find("smtp-source"), "-d", "-s", str(sessions), "-m", str(messages), "-l", str(size)]
    command += ["-f", "noreply@example.org", "-t", "ada@example.org", f"127.0.0.1:{port}"]
    began = time.perf_counter()
    subprocess.run(command, check=True, timeout=120, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


@contextmanager
def delayed(port: int, *, round_trip: float) -> Iterator[int]:
    """Forward a port to another one and delay each round trip by some seconds; yields the new port."""
    line: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    passing: list[asyncio.Task[None]] = []

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passing.append(asyncio.create_task(_pass_on(reader, writer, port, round_trip / 2)))

    async def serve() -> None:
        server = await asyncio.start_server(begin, "127.0.0.1", 0)
        ended = asyncio.Event()
        line.set_result((server.sockets[0].getsockname()[1], asyncio.get_running_loop(), ended))
        await ended.wait()
        server.close()
        await asyncio.gather(*passing, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="delay", daemon=True)
    thread.start()
    far, loop, ended = line.result(PATIENCE_S)
    try:
        yield far
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join(PATIENCE_S)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, delay: float) -> None:
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
    with suppress(OSError):
        await asyncio.gather(_delay(reader, far_writer, delay), _delay(far_reader, writer, delay))
    for end in (writer, far_writer):
        end.close()


async def _delay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Delay every piece by the same time, without limiting the throughput."""
    under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def deliver() -> None:
        while True:
            due, piece = await under_way.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not piece:
                with suppress(OSError):
                    writer.write_eof()
                return
            writer.write(piece)

    delivering = asyncio.create_task(deliver())
    while piece := await reader.read(CHUNK):
        under_way.put_nowait((loop.time() + delay, piece))
    under_way.put_nowait((loop.time() + delay, b""))
    await delivering


def _await_listener(port: int) -> None:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    msg = "smtp-sink does not listen"
    raise RuntimeError(msg)


def repository() -> Path:
    """The checkout's root."""
    return Path(__file__).parent.parent
