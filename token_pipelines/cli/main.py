"""The command line: lists the commands, and shows an error as one sentence on stderr, never as a traceback."""

import sys
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final

import click

from token_pipelines.cli import output
from token_pipelines.errors import ConfigError, TokenPipelinesError

INTERRUPTED: Final = 130

COMMANDS: Final = {
    "bounces": "Read delivery reports: what came back counts as failed.",
    "demo": "Try it: a sample registry, an inbox, four days, the Dagster UI.",
    "doubt": "Notices in doubt that wait for a person: send them again, or count them as told.",
    "forecast": "How many notices each tier will send on each coming day.",
    "history": "What the ledger says: was this person warned, and when?",
    "mark-notified": "Count what came due before an instant as told.",
    "preview": "Every email on made-up tokens, as pages to look at.",
    "run": "Run one day's job in this process: read, decide, plan, send.",
    "source": "The database that knows the tokens.",
    "suppress": "Addresses not to write to, kept as keyed hashes.",
}
"""Every command, with the first line of its help. The command `foo-bar` is `foo_bar` in the module `cli.foo_bar`."""


class _Commands(click.Group):
    """Imports a command's module only when the command is used: Dagster and pandas take seconds to import."""

    def make_context(self, *args: Any, **more: Any) -> click.Context:  # noqa: ANN401 -- click's hook
        with output.noticing_a_closed_pipe():  # it prints the help
            return super().make_context(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 -- click's hook
        with output.noticing_a_closed_pipe():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's hook
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 -- click's hook
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"token_pipelines.cli.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 -- click's hook
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("token-pipelines"))
def cli() -> None:
    """Tell the owners of expiring tokens in good time, once per step of urgency."""


def main() -> None:
    """The console script."""
    output.escape_what_cannot_be_encoded()
    try:
        with output.noticing_a_closed_pipe():
            status = _run()
    except output.ReaderGoneError:
        output.discard()
        status = output.READER_GONE
    sys.exit(status)


def _run() -> int:
    try:
        status = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        return INTERRUPTED
    except click.ClickException as error:
        output.say(f"{error.format_message()} See --help.", err=True)
        return ConfigError.exit_status
    except TokenPipelinesError as error:
        output.say(str(error), err=True)
        return error.exit_status
    except KeyboardInterrupt:
        return INTERRUPTED
    return status if isinstance(status, int) else 0
