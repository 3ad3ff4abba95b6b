"""The proxies of docs/ui/, as they are shipped: only names, ports and TLS are replaced."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from support.ports import free_port
from support.web import Upstream, ask, upstream

SHIPPED = Path(__file__).parents[2] / "docs" / "ui"
NAME = "tokens.example.org"
LOGIN = {"Authorization": "Basic YWxpY2U6b3BlbiBzZXNhbWU="}  # alice:open sesame
START_S = 30
PATH = f"{os.environ['PATH']}:/usr/sbin"  # where Debian puts nginx


class Proxy(NamedTuple):
    """A proxy that runs, and the server behind it."""

    port: int
    behind: Upstream

    def status(self, path: str, method: str = "GET", **headers: str) -> int:
        """Ask by the own name and with the login, unless ``headers`` replace them."""
        sent = {"Host": NAME} | LOGIN | {name.replace("_", "-"): value for name, value in headers.items()}
        return ask(self.port, path, method=method, body="{}" if method == "POST" else None, headers=sent)[0]


def nginx(folder: Path, port: int, behind: int) -> list[str]:
    """The shipped file, without TLS, and around it what a distribution's nginx.conf has."""
    text = (SHIPPED / "nginx.conf").read_text(encoding="utf-8")
    text = re.sub(r"listen 443 ssl", f"listen 127.0.0.1:{port}", text)
    text = re.sub(r"(?m)^ *ssl_certificate.*\n", "", text).replace("127.0.0.1:3000", f"127.0.0.1:{behind}")
    text = text.replace("/etc/nginx/token-pipelines.htpasswd", str(folder / "htpasswd"))
    (folder / "htpasswd").write_text("alice:{PLAIN}open sesame\n", encoding="utf-8")
    temporary = "".join(
        f"{kind}_temp_path {folder / kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    around = f"pid {folder / 'pid'};\nerror_log {folder / 'log'};\nevents {{}}\nhttp {{\naccess_log off;\n"
    (folder / "nginx.conf").write_text(f"{around}{temporary}{text}}}\n", encoding="utf-8")
    (folder / "htpasswd").chmod(0o644)
    return [
        "nginx",
        "-p",
        str(folder),
        "-c",
        str(folder / "nginx.conf"),
        "-e",
        str(folder / "log"),
        "-g",
        "daemon off; master_process off;",
    ]


def caddy(folder: Path, port: int, behind: int) -> list[str]:
    """The shipped file, without TLS."""
    text = (SHIPPED / "Caddyfile").read_text(encoding="utf-8").replace("127.0.0.1:3000", f"127.0.0.1:{behind}")
    hashed = subprocess.run(
        ["caddy", "hash-password", "--plaintext", "open sesame"],
        check=True,
        capture_output=True,
        env=_environment(folder),
    )
    text = re.sub(r"alice \S+", lambda _: f"alice {hashed.stdout.decode().strip()}", text)
    text = text.replace(f"\n{NAME} {{", f"\nhttp://{NAME}:{port} {{\n\tbind 127.0.0.1")
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n}\n" + text, encoding="utf-8")
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def _environment(folder: Path) -> dict[str, str]:
    return {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "PATH": PATH}


@contextmanager
def running(folder: Path, build: Callable[[Path, int, int], list[str]]) -> Iterator[Proxy]:
    """Start a proxy, and end it afterwards."""
    port = free_port()
    with upstream() as behind, (folder / "output").open("wb") as output:
        command = build(folder, port, behind.port)
        process = subprocess.Popen(command, stdout=output, stderr=output, env=_environment(folder))
        try:
            deadline = time.monotonic() + START_S
            while time.monotonic() < deadline:
                assert process.poll() is None, (folder / "output").read_text(encoding="utf-8")
                with suppress(OSError):
                    ask(port, "/")
                    break
                time.sleep(0.1)
            behind.reached.clear()
            yield Proxy(port, behind)
        finally:
            process.terminate()
            process.wait(START_S)


PROXIES = {"nginx": nginx, "caddy": caddy}


@pytest.fixture(scope="module", params=PROXIES)
def proxy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    name = request.param
    if shutil.which(name, path=PATH) is None:
        pytest.skip(f"{name} is missing (apt-get install {name})")
    with running(tmp_path_factory.mktemp(name), PROXIES[name]) as made:
        yield made


@pytest.fixture(autouse=True)
def fresh(proxy: Proxy) -> None:
    proxy.behind.reached.clear()


def test_proxy_passes_what_the_ui_asks(proxy: Proxy) -> None:
    assert proxy.status("/runs") == 200
    assert proxy.status("/graphql", "POST", Origin=f"https://{NAME}") == 200
    assert proxy.status("/graphql", "POST") == 200
    assert proxy.status("/graphql", Upgrade="websocket", Connection="Upgrade", Origin=f"https://{NAME}") == 200
    assert proxy.behind.reached == ["GET /runs", "POST /graphql", "POST /graphql", "GET /graphql"]


def test_proxy_asks_for_a_login(proxy: Proxy) -> None:
    assert proxy.status("/runs", Authorization="") == 401
    assert proxy.status("/graphql", "POST", Authorization="Basic YWxpY2U6d3Jvbmc=") == 401
    assert proxy.behind.reached == []


@pytest.mark.parametrize(
    "path", ["/graphql", "/graphql/", "/prefix/graphql", "/%67raphql", "//graphql", "/x/../graphql"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_proxy_refuses_graphql_by_anything_but_post(proxy: Proxy, method: str, path: str) -> None:
    assert proxy.status(f"{path}?query=mutation", method) == 405
    assert proxy.behind.reached == []


@pytest.mark.parametrize("origin", ["https://evil.example", f"http://{NAME}", f"https://{NAME}.evil.example", "null"])
def test_proxy_refuses_a_foreign_origin(proxy: Proxy, origin: str) -> None:
    assert proxy.status("/graphql", "POST", Origin=origin) == 403
    assert proxy.status("/report_asset_materialization/notices/day", "POST", Origin=origin) == 403
    assert proxy.status("/graphql", Upgrade="websocket", Connection="Upgrade", Origin=origin) == 403
    assert proxy.behind.reached == []


@pytest.mark.parametrize("host", ["evil.example", f"{NAME}.evil.example", "127.0.0.1"])
def test_proxy_refuses_a_foreign_host(proxy: Proxy, host: str) -> None:
    """Caddy answers with an empty page where it has no site of this name."""
    proxy.status("/runs", Host=host)
    proxy.status("/graphql", "POST", Host=host, Origin=f"https://{host}")
    assert proxy.behind.reached == []
