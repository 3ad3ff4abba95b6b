"""A real PgBouncer of its own for a test: a Unix socket in a short folder, in front of the session's Postgres."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sqlalchemy import make_url

from token_pipelines.demo import postgres_files

PATIENCE_S: Final = 30
PORT: Final = 6432

CONFIG: Final = """\
[databases]
* = host={server} port={server_port} user=postgres

[pgbouncer]
listen_addr =
listen_port = {port}
unix_socket_dir = {root}
auth_type = any
pool_mode = {mode}
ignore_startup_parameters = {ignored}
default_pool_size = {size}
query_wait_timeout = {wait}
logfile = {root}/log
pidfile = {root}/pid
"""


def find_pgbouncer() -> str | None:
    """The program ``pgbouncer``, which is not on everybody's PATH."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class PgBouncer:
    """A running PgBouncer. ``root`` must be a short path that another user may walk through; it is not removed."""

    def __init__(
        self, root: Path, server: str, *, mode: str, ignored: str = "", size: int = 20, wait: int = PATIENCE_S
    ) -> None:
        """Pool connections to ``server``, a URL through a Unix socket. ``ignored`` are start-up parameters."""
        url = make_url(server)
        account = postgres_files.find_account()
        self._root = root
        self._user = [] if account is None else ["-u", account.pw_name]
        self._process: subprocess.Popen[bytes] | None = None
        self._file = root / "pgbouncer.ini"
        config = CONFIG.format(
            root=root,
            server=url.query["host"],
            server_port=url.query.get("port", postgres_files.PORT),
            port=PORT,
            mode=mode,
            ignored=ignored,
            size=size,
            wait=wait,
        )
        self._file.write_text(config, encoding="utf-8")
        self._file.chmod(0o644)
        if account is not None:
            os.chown(root, account.pw_uid, account.pw_gid)

    def __enter__(self) -> Self:
        """Start it."""
        program = find_pgbouncer() or "pgbouncer"
        self._process = subprocess.Popen(
            [program, "-q", *self._user, str(self._file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
        )
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)
        return self

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.connect(str(self._root / f".s.PGSQL.{PORT}"))
            return True
        return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @property
    def log(self) -> str:
        """What it has logged so far."""
        file = self._root / "log"
        return file.read_text(encoding="utf-8") if file.exists() else ""

    def url(self, server: str) -> str:
        """The URL of a database of the server, through the pooler."""
        query = {"host": str(self._root), "port": str(PORT)}
        return make_url(server).set(query=query).render_as_string(hide_password=False)


OpenPooler = Callable[..., PgBouncer]
"""The fixture ``pgbouncer``: ``pgbouncer(mode="session")``."""
