"""A real MariaDB of its own for the tests: a data folder below the temporary one, a Unix socket, no port."""

import os
import pwd
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sqlalchemy import URL, NullPool, create_engine
from sqlalchemy.exc import OperationalError

PATIENCE_S: Final = 60
SBIN: Final = "/usr/sbin:/usr/local/sbin:/usr/libexec"


def find_program(name: str) -> str | None:
    """A program of MariaDB's, which is not on everybody's PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SBIN}")


class MariaDB:
    """A running server. ``root`` must be a short path that another user may walk through; it is not removed."""

    def __init__(self, root: Path) -> None:
        """Nothing is started before ``__enter__``."""
        self._root = root
        self._socket = root / "socket"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Make the cluster and start it."""
        options = ["--no-defaults", f"--datadir={self._root / 'data'}", f"--user={self._account()}"]
        install = [find_program("mariadb-install-db") or "", *options, "--auth-root-authentication-method=normal"]
        done = subprocess.run([*install, "--skip-test-db"], capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr
        limits = ["--skip-networking", f"--socket={self._socket}", f"--pid-file={self._root / 'pid'}"]
        lean = ["--innodb-buffer-pool-size=64M", f"--log-error={self._root / 'log.err'}"]
        server = [find_program("mariadbd") or "", *options, *limits, *lean]
        self._process = subprocess.Popen(server, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert time.monotonic() < deadline, (self._root / "log.err").read_text(encoding="utf-8")
            time.sleep(0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(PATIENCE_S)

    def url(self, database: str | None = None, username: str = "root") -> URL:
        """The URL of a database, or of none."""
        query = {"unix_socket": str(self._socket)}
        return URL.create("mysql+pymysql", username=username, host="localhost", database=database, query=query)

    @contextmanager
    def database(self) -> Iterator[URL]:
        """A fresh, empty database for a test."""
        name = f"source_{uuid.uuid4().hex[:12]}"
        self.execute(self.url(), f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        yield self.url(name)
        self.execute(self.url(), "SET lock_wait_timeout = 20", f"DROP DATABASE {name}")

    def execute(self, url: URL, *statements: str) -> None:
        """Run statements as they are."""
        engine = create_engine(url, poolclass=NullPool)
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

    def _account(self) -> str:
        """Whom the server runs as: root becomes nobody."""
        if os.geteuid() != 0:
            return pwd.getpwuid(os.geteuid()).pw_name
        shutil.chown(self._root, "nobody")
        return "nobody"

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:  # PyMySQL leaves its own open when nobody is there yet
            if probe.connect_ex(str(self._socket)):
                return False
        try:
            self.execute(self.url(), "SELECT 1")
        except OperationalError:
            return False
        return True
