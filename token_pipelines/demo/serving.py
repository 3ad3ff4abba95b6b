"""Serves what a demo shows: the Dagster UI with its daemon, and the inbox as pages."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

from token_pipelines import shipped
from token_pipelines.demo.environment import LOOPBACK
from token_pipelines.demo.inbox_pages import write_index
from token_pipelines.errors import DemoError

START_TIMEOUT_S: Final = 120
STOP_TIMEOUT_S: Final = 20
POLL_S: Final = 0.3
GUARDED_UI: Final = "token_pipelines.defs.guarded_ui"  # started, not imported: only `defs` may import Dagster


class _InboxPages(SimpleHTTPRequestHandler):
    """Serves the inbox folder; its index is written anew for each visit."""

    def do_GET(self) -> None:
        if self.path in {"/", "/index.html"}:
            write_index(Path(self.directory))
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Log nothing to the operator's terminal."""


@contextmanager
def inbox_pages(folder: Path) -> Iterator[str]:
    """Serve the inbox on loopback, at the address yielded."""
    server = ThreadingHTTPServer((LOOPBACK, 0), partial(_InboxPages, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, name="inbox-pages", daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def dagster_ui(log: Path, port: int) -> Iterator[str]:
    """Run Dagster's webserver and daemon on loopback, at the address yielded, from ``port`` or the next free one.

    The webserver refuses what foreign web pages make a browser ask of it: see `web_filter`.
    """
    port = _free_port(port)
    command = [
        sys.executable, "-m", GUARDED_UI, "dev", "--host", LOOPBACK, "--port", str(port),
        "--workspace", str(shipped.path("workspace.yaml")),
    ]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)  # noqa: S603 -- our own interpreter
    address = f"http://{LOOPBACK}:{port}/"
    try:
        _await(process, address, log)
        _check_filter(address)
        yield address
    finally:
        _end(process)


def _free_port(wanted: int) -> int:
    for port in (wanted, *range(wanted + 1, wanted + 50), 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    msg = "No port is free on this machine for the Dagster UI; end a server, or name a port with --port."
    raise DemoError(msg)


def _await(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}server_info", timeout=5):  # noqa: S310 -- loopback, our own server
                return
        except (urllib.error.URLError, OSError):
            time.sleep(POLL_S)
    msg = f"The Dagster UI did not start; {log} says why."
    raise DemoError(msg)


def _check_filter(address: str) -> None:
    """Make sure that the filter is there, which is put around Dagster's webserver from outside.

    Raises:
        DemoError: if a change by GET would pass.
    """
    try:
        with urllib.request.urlopen(f"{address}graphql?query={{__typename}}", timeout=30):  # noqa: S310 -- as above
            pass
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.METHOD_NOT_ALLOWED:
            return
    msg = "The Dagster UI runs without its web filter, so any web page could change it; the demo does not show it."
    raise DemoError(msg)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the whole group to end, then kill the rest of it: a code server sometimes hangs after Dagster has ended."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if process.poll() is None:
            os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
