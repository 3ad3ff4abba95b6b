"""Refuses what a foreign web page makes a browser ask of a UI on this machine. An ASGI application around another one.

The Dagster UI has no login and executes changes that come by GET, so any page that is open in a browser could launch
runs. A browser says where a request comes from in ways that a page cannot forge: in Origin, whenever a page sends
something or opens a WebSocket, and in Host, which is the page's own when its name was made to point to this machine.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK_NAMES: Final = frozenset({"127.0.0.1", "localhost", "::1"})
GRAPHQL: Final = "/graphql"
FOREIGN_HOST: Final = "This address is not the UI's; open it as http://127.0.0.1 with its port."
FOREIGN_ORIGIN: Final = "Another web page has sent this request; the UI refuses it."
GRAPHQL_BY_GET: Final = "GraphQL is answered by POST only: any web page can make a browser send a GET."


class WebFilter:
    """Passes on only what the UI itself asks, or a program on this machine."""

    def __init__(self, application: Application) -> None:
        """Guard this application."""
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        refusal = refuse(scope) if scope["type"] in {"http", "websocket"} else None
        if refusal is None:
            await self._application(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})  # before it was accepted: an HTTP 403
        else:
            status, why = refusal
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"allow", b"POST")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": why.encode() + b"\n"})


def refuse(scope: Scope) -> tuple[int, str] | None:
    """The status and the reason with which a request is refused; None if it may pass."""
    hosts, origins = (_values(scope, name) for name in (b"host", b"origin"))
    if len(hosts) != 1 or _name(hosts[0]) not in LOOPBACK_NAMES:
        return 403, FOREIGN_HOST
    if any(origin.lower() != f"http://{hosts[0].lower()}" for origin in origins):
        return 403, FOREIGN_ORIGIN
    by_get = scope["type"] == "http" and scope["method"] != "POST"
    if by_get and scope["path"].rstrip("/").endswith(GRAPHQL):
        return 405, GRAPHQL_BY_GET
    return None


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _name(host: str) -> str:
    """The host without its port; empty if it is not well formed."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
