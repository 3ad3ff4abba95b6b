"""The servers behind a config whose URLs begin with ``demo://``: an embedded Postgres and a local inbox.

They run while one command runs. The product sees ordinary URLs only: this module puts them into the environment, where
they override the file, for this process and for those that it starts.
"""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from token_pipelines import shipped
from token_pipelines.config import ENV_PREFIX, Config, load, load_all
from token_pipelines.demo.inbox import Inbox
from token_pipelines.demo.postgres import EmbeddedPostgres
from token_pipelines.errors import ConfigError

FOLDER: Final = "demo"
DATABASES: Final = ("registry", "token_pipelines", "dagster")
LOOPBACK: Final = "127.0.0.1"
DAGSTER_STORAGE: Final = "DAGSTER_POSTGRES_URL"


@dataclass(frozen=True)
class Servers:
    """What runs beside a command on a demo's config."""

    config: Config
    registry_url: str
    inbox: Path


def ensure_config(path: Path) -> None:
    """Write the sample config to ``path``, and its templates beside it, if there is no file yet."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(shipped.path("token_pipelines.yaml"), path)
    templates = path.absolute().parent / "templates"
    if not templates.exists():
        shutil.copytree(shipped.path("templates"), templates)


@contextmanager
def serving(path: Path) -> Iterator[Servers]:
    """Run the demo's servers for the config at ``path``, and override its URLs with theirs.

    Raises:
        ConfigError: if the config is an operator's own: its databases are never touched by the demo.
        DemoError: if a server cannot be started.
    """
    raw = load_all(path).get(None)
    if raw is None:
        msg = f"{path} holds several pipelines, which the demo cannot run; name another file with --config."
        raise ConfigError(msg)
    if not raw.is_demo:
        msg = f"{path} names databases of your own, which the demo does not touch; name another file with --config."
        raise ConfigError(msg)
    folder = raw.state_folder / FOLDER
    with ExitStack() as stack:
        postgres = stack.enter_context(EmbeddedPostgres(folder / "postgres"))
        for name in DATABASES:
            postgres.create_database(name)
        inbox = folder / "inbox"
        values = {
            f"{ENV_PREFIX}SOURCE__URL": postgres.url("registry"),
            f"{ENV_PREFIX}LEDGER__URL": postgres.url("token_pipelines"),
            f"{ENV_PREFIX}SMTP__HOST": LOOPBACK,
            f"{ENV_PREFIX}SMTP__PORT": str(stack.enter_context(_inbox_port(inbox))),
            f"{ENV_PREFIX}SMTP__SECURITY": "none",
            f"{ENV_PREFIX}SMTP__RATE": "1000/s",
            DAGSTER_STORAGE: postgres.url("dagster").replace("postgresql://", "postgresql+psycopg2://", 1),
        }
        stack.enter_context(overridden(values))
        yield Servers(config=load(path), registry_url=postgres.url("registry"), inbox=inbox)


@contextmanager
def _inbox_port(folder: Path) -> Iterator[int]:
    """The port of the inbox: that of a demo in another terminal if one runs, else that of a new inbox."""
    note = folder.parent / "inbox.port"
    if note.exists() and _listens(int(note.read_text())):
        yield int(note.read_text())
        return
    with Inbox(folder) as inbox:
        note.write_text(str(inbox.port))
        try:
            yield inbox.port
        finally:
            note.unlink(missing_ok=True)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0


@contextmanager
def overridden(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables while the block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
