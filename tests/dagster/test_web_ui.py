"""Dagster's own webserver: behind the demo's filter, read-only, and as it is."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
from support.ports import free_port
from support.web import ask

from token_pipelines.demo import serving

START_S = 60
MUTATION = 'mutation { setConcurrencyLimit(concurrencyKey: "planted", limit: 1) }'
ASKED = '{ instance { concurrencyLimit(concurrencyKey: "planted") { limit } } }'
DEFINITIONS = "import dagster as dg\ndefs = dg.Definitions()\n"


@contextmanager
def webserver(folder: Path, *command: str) -> Iterator[int]:
    """A webserver over an empty code location; its port."""
    (folder / "empty.py").write_text(DEFINITIONS, encoding="utf-8")
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    port = free_port()
    options = ["--host", "127.0.0.1", "--port", str(port), "--python-file", str(folder / "empty.py")]
    process = subprocess.Popen(
        [sys.executable, "-m", *command, *options],
        env={"DAGSTER_HOME": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _await(process, port)
        yield port
    finally:
        serving._end(process)  # noqa: SLF001 -- ends what it started too


def _await(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None
        with suppress(OSError):
            ask(port, "/server_info")
            return
        time.sleep(0.2)
    pytest.fail("the webserver did not start")


def status(port: int, path: str, *, query: str | None = None, **headers: str) -> int:
    """Ask, by POST if there is a query; the status of the answer."""
    if query is None:
        return ask(port, path, headers=headers)[0]
    body = json.dumps({"query": query})
    return ask(port, path, method="POST", body=body, headers=headers | {"Content-Type": "application/json"})[0]


def limit(port: int) -> int | None:
    """What the mutation would have set."""
    headers = {"Content-Type": "application/json"}
    _, answer = ask(port, "/graphql", method="POST", body=json.dumps({"query": ASKED}), headers=headers)
    found: int | None = json.loads(answer)["data"]["instance"]["concurrencyLimit"]["limit"]
    return found


BY_GET = f"/graphql?query={quote(MUTATION)}"


def test_webserver_as_it_is_takes_changes_by_get(tmp_path: Path) -> None:
    """The danger is real; when Dagster ends it, this test says so and the filter may go."""
    with webserver(tmp_path, "dagster_webserver") as port:
        assert limit(port) != 1
        assert status(port, BY_GET) == 200
        assert limit(port) == 1


def test_webserver_of_the_demo_refuses_foreign_pages(tmp_path: Path) -> None:
    with webserver(tmp_path, serving.GUARDED_UI, "webserver") as port:
        assert status(port, BY_GET) == 405
        assert status(port, "/graphql", query=MUTATION, Origin="https://evil.example") == 403
        assert status(port, "/graphql", query=MUTATION, Host="evil.example") == 403
        assert status(port, "/report_asset_materialization/notices", query="", Origin="https://evil.example") == 403
        assert limit(port) != 1
        assert status(port, "/runs") == 200
        assert status(port, "/graphql", query=MUTATION, Origin=f"http://127.0.0.1:{port}") == 200
        assert limit(port) == 1
        serving._check_filter(f"http://127.0.0.1:{port}/")  # noqa: SLF001 -- the demo's own question


def test_webserver_that_only_shows_changes_nothing(tmp_path: Path) -> None:
    """`--read-only`, as docs/ui.md recommends it for looking."""
    with webserver(tmp_path, "dagster_webserver", "--read-only") as port:
        status(port, BY_GET)
        status(port, "/graphql", query=MUTATION)
        assert limit(port) != 1
        assert status(port, "/runs") == 200
