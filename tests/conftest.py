"""Fixtures for all tests: one real Postgres for the session, and a fresh database for each test that asks."""

import os
import shutil
import socket
import uuid
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

import psycopg
import pytest
from hypothesis import settings
from psycopg import sql
from sqlalchemy import URL, make_url
from support.databases import Database, OpenDatabase
from support.mariadbd import MariaDB, find_program
from support.pgbouncerd import OpenPooler, PgBouncer, find_pgbouncer
from support.pipeline import MakePipeline, PipelineRunner, Registry
from support.smtpd import Smtpd

from token_pipelines.demo.postgres import EmbeddedPostgres
from token_pipelines.demo.registry import create_schema

TESTS: Final = Path(__file__).parent
REGISTRY_TEMPLATE = "registry_template"
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

REQUIRE_ALL = os.environ.get("TOKEN_PIPELINES_REQUIRE_ALL") == "1"

# The machine's load is no fault of a test, and in CI a test must not fail on one push and pass on the next.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("quick", deadline=None, max_examples=10)
settings.load_profile("ci" if os.environ.get("CI") else "local")

FOLDER_MARKS: Final = {"browser": "browser", "chaos": "slow", "dagster": "dagster", "state_machine": "slow"}
FIXTURE_MARKS: Final = {
    "mariadb_server": "mariadb",
    "page": "browser",
    "pair": "postgres",  # a primary and its standby
    "pgbouncer": "pgbouncer",
    "postfix": "postfix",
    "postgres_server": "postgres",
}
DATABASE_KINDS: Final = frozenset({"mariadb", "postgres", "sqlite"})

# Speed without giving up what a crash must not lose: fsync and synchronous_commit stay on.
SERVER_SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "64MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by its folder, by the fixtures that it uses, and as slow where it has a time limit of its own."""
    for item in items:
        for mark in sorted(_marks(item)):
            item.add_marker(mark)


def _marks(item: pytest.Item) -> set[str]:
    folders = item.path.relative_to(TESTS).parts[:-1]
    fixtures = frozenset(getattr(item, "fixturenames", ()))
    marks = {FOLDER_MARKS[name] for name in folders if name in FOLDER_MARKS}
    marks |= {FIXTURE_MARKS[name] for name in fixtures if name in FIXTURE_MARKS}
    if "open_database" in fixtures:  # it opens a kind when called: the test's parameter, or else perhaps MariaDB
        callspec = getattr(item, "callspec", None)
        parameters = {value for value in callspec.params.values() if isinstance(value, str)} if callspec else set()
        marks |= (DATABASE_KINDS & parameters or {"mariadb"}) - {"sqlite"}
    if item.get_closest_marker("timeout"):
        marks.add("slow")
    return marks


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """Start the session's Postgres server."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), settings=SERVER_SETTINGS)
    with server:
        yield server
    shutil.rmtree(server.home, ignore_errors=True)


@pytest.fixture(scope="session")
def registry_template(postgres_server: EmbeddedPostgres) -> str:
    """Make a database with the registry's empty tables, to be cloned, and give its name."""
    postgres_server.create_database(REGISTRY_TEMPLATE)
    with psycopg.connect(postgres_server.url(REGISTRY_TEMPLATE)) as connection:
        create_schema(connection)
    return REGISTRY_TEMPLATE


@pytest.fixture
def registry_url(postgres_server: EmbeddedPostgres, registry_template: str) -> Iterator[str]:
    """Give the URL of a fresh database with the registry's empty tables."""
    yield from _database(postgres_server, "registry", registry_template)


@pytest.fixture
def registry(registry_url: str) -> Registry:
    """Give a registry to fill: users, addresses, tokens."""
    return Registry(registry_url)


@pytest.fixture
def relay() -> Iterator[Smtpd]:
    """Give a relay that takes every message."""
    with Smtpd() as server:
        yield server


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Give a port of loopback at which nobody listens, and which nobody else is given meanwhile."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@pytest.fixture
def make_pipeline(tmp_path: Path, registry: Registry) -> MakePipeline:
    """Configure a pipeline on the registry, for a relay or its port; keywords change the config's sections."""

    def make(relay: Smtpd | int, **sections: Any) -> PipelineRunner:  # noqa: ANN401 -- YAML
        return PipelineRunner(tmp_path, registry.url, relay if isinstance(relay, int) else relay.port, **sections)

    return make


@pytest.fixture
def database_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """Give the URL of a fresh, empty database."""
    yield from _database(postgres_server, "empty", None)


def _database(server: EmbeddedPostgres, kind: str, template: str | None) -> Iterator[str]:
    name = f"{kind}_{uuid.uuid4().hex[:12]}"
    server.create_database(name, template)
    yield server.url(name)
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDB]:
    """Start the session's MariaDB, where there is one."""
    if find_program("mariadbd") is None or find_program("mariadb-install-db") is None:
        pytest.skip("needs MariaDB (mariadbd, mariadb-install-db)")
    with TemporaryDirectory(prefix="tp-maria-") as folder:
        Path(folder).chmod(0o755)
        with MariaDB(Path(folder)) as server:
            yield server


@pytest.fixture
def pgbouncer(postgres_server: EmbeddedPostgres) -> Iterator[OpenPooler]:
    """Start a PgBouncer in front of the session's Postgres: ``pgbouncer(mode="session")``."""
    if find_pgbouncer() is None:
        pytest.skip("needs PgBouncer (pgbouncer)")
    with ExitStack() as stack:

        def start(**options: Any) -> PgBouncer:  # noqa: ANN401 -- what PgBouncer takes
            root = Path(stack.enter_context(TemporaryDirectory(prefix="tp-pool-")))
            root.chmod(0o755)
            return stack.enter_context(PgBouncer(root, postgres_server.url(), **options))

        yield start


@pytest.fixture
def open_database(request: pytest.FixtureRequest, tmp_path: Path) -> OpenDatabase:
    """Make a fresh database of a kind: postgres, mariadb, sqlite."""

    def open_it(kind: str) -> Database:
        if kind == "postgres":
            url = make_url(request.getfixturevalue("database_url")).set(drivername="postgresql+psycopg")
        elif kind == "mariadb":
            url = request.getfixturevalue("mariadb_database")
        else:
            url = make_url(f"sqlite:///{tmp_path / 'tokens.db'}")
        return Database(url, tmp_path)

    return open_it


@pytest.fixture
def mariadb_database(mariadb_server: MariaDB) -> Iterator[URL]:
    """Give the URL of a fresh, empty database."""
    with mariadb_server.database() as url:
        yield url


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With TOKEN_PIPELINES_REQUIRE_ALL=1 a skipped test is a failure: what did not run proves nothing."""
    report = yield
    return _refuse_skip(report)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Refuse the skip of a whole module as well."""
    report = yield
    return _refuse_skip(report)


def _refuse_skip(report: Report) -> Report:
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{why} (TOKEN_PIPELINES_REQUIRE_ALL=1 allows no skip)"
    return report
