"""Asks a web server on loopback, with any header, and serves answers that say what reached them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def ask(
    port: int, path: str, *, method: str = "GET", body: str | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """The status and the body of the answer. ``headers`` may replace Host."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body=None if body is None else body.encode(), headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@dataclass
class Upstream:
    """A server behind a proxy."""

    port: int
    reached: list[str] = field(default_factory=list)
    """The method and the path of each request that got through."""


@contextmanager
def upstream() -> Iterator[Upstream]:
    """Serve on a free port while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    found = Upstream(port=server.server_port)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.reached.append(f"{self.command} {self.path}")
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    server.RequestHandlerClass = Handler
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
