"""What the filter in front of the demo's UI passes on, and what it refuses."""

import asyncio
from typing import Any

import pytest

from token_pipelines.demo.web_filter import WebFilter

OURS = "127.0.0.1:3000"


def ask(
    method: str = "POST", path: str = "/graphql", *, kind: str = "http", hosts: tuple[str, ...] = (OURS,), **more: str
) -> str | int:
    """Ask through the filter: "passed", or the status or close code of the refusal."""
    answers: list[Any] = []

    async def application(*_: object) -> None:
        answers.append({"status": "passed"})

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        answers.append(message)

    headers = [(b"host", host.encode()) for host in hosts]
    headers += [(name.encode(), value.encode()) for name, value in more.items()]
    scope = {"type": kind, "method": method, "path": path, "headers": headers}
    asyncio.run(WebFilter(application)(scope, receive, send))
    found: str | int = answers[0].get("status") or answers[0]["code"]
    return found


@pytest.mark.parametrize("host", [OURS, "localhost:3000", "LOCALHOST:3000", "[::1]:3000", "127.0.0.1"])
def test_filter_passes_what_the_ui_itself_asks(host: str) -> None:
    assert ask(hosts=(host,), origin=f"http://{host}") == "passed"
    assert ask("GET", "/runs", hosts=(host,)) == "passed"
    assert ask("POST", hosts=(host,)) == "passed"  # a program: it sends no Origin
    assert ask("GET", kind="websocket", hosts=(host,), origin=f"http://{host}") == "passed"
    assert ask(kind="lifespan", hosts=()) == "passed"


@pytest.mark.parametrize("path", ["/graphql", "/graphql/", "/graphql//", "/prefix/graphql"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS"])
def test_filter_refuses_graphql_by_anything_but_post(method: str, path: str) -> None:
    """What an image, a link or a form of a web page makes a browser send, without an Origin."""
    assert ask(method, path) == 405


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://127.0.0.1:8000", "http://localhost:3000", "https://127.0.0.1:3000", "null", ""],
)
@pytest.mark.parametrize("path", ["/graphql", "/report_asset_materialization/notices/day", "/runs"])
def test_filter_refuses_a_foreign_origin(path: str, origin: str) -> None:
    """Another server on this machine is foreign too."""
    assert ask("POST", path, origin=origin) == 403
    assert ask("GET", path, kind="websocket", origin=origin) == 1008


@pytest.mark.parametrize(
    "hosts", [("evil.example:3000",), ("127.0.0.1.evil.example",), ("",), (), ("[::1",), (OURS, "evil.example")]
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_filter_refuses_a_foreign_host(kind: str, hosts: tuple[str, ...]) -> None:
    """A page whose name was made to point to this machine is its own origin."""
    assert ask(kind=kind, hosts=hosts) in {403, 1008}
