"""What the command ``demo`` does, one step after the other."""

import signal
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Final

from token_pipelines.cli import terminal
from token_pipelines.cli.output import make_console, say
from token_pipelines.clock import clock_starting_at, system_clock
from token_pipelines.definitions import CONFIG_VARIABLE
from token_pipelines.defs.day_report import DayReport
from token_pipelines.defs.launch import launch_day, set_environment
from token_pipelines.demo import environment, registry, serving
from token_pipelines.demo.inbox_pages import write_index

PAST_DAYS: Final = 3
LOOK_EVERY_S: Final = 0.2

console = make_console()


def show(path: Path, *, once: bool, port: int) -> int:
    """Run the demo on the config at ``path``; returns the exit status of today's run.

    Past days run with a clock set to their own morning, and only in the first demo: a second one sends nothing twice.
    """
    environment.ensure_config(path)
    with ExitStack() as stack:
        console.print("Starting the embedded Postgres and the inbox ...")
        servers = stack.enter_context(environment.serving(path))
        now = system_clock()
        is_new = registry.seed(servers.registry_url, now=now)
        for back in range(PAST_DAYS if is_new else 0, -1, -1):
            report = _run(servers, back)
            for failure in report.failures:
                say(failure)
            terminal.show_report(report)
            if report.interrupted:
                return report.exit_status
        received = len(list(servers.inbox.glob("*.eml")))
        index = write_index(servers.inbox)
        console.print(f"\n{received:,} emails lie in {servers.inbox}; look at them at {index.as_uri()}", soft_wrap=True)
        if once:
            console.print(f"Ask the ledger: token-pipelines history --config {path}", soft_wrap=True)
        else:
            _serve(stack, servers, path, port)
    return report.exit_status


def _run(servers: environment.Servers, days_back: int) -> DayReport:
    config = servers.config
    now = system_clock()
    day = config.schedule.today(now) - timedelta(days=days_back)
    clock = clock_starting_at(config.schedule.run_at(day)) if days_back else system_clock
    with terminal.progress() as on_progress:
        return launch_day(config, day=day, tiers=(), clock=clock, approve=False, on_progress=on_progress)


def _serve(stack: ExitStack, servers: environment.Servers, path: Path, port: int) -> None:
    """Show the UI and the inbox until Ctrl-C or a SIGTERM."""
    received = catch_signals()  # before the children start: they inherit a signal that is ignored
    set_environment(servers.config)
    stack.enter_context(environment.overridden({CONFIG_VARIABLE: str(path.absolute())}))
    pages = stack.enter_context(serving.inbox_pages(servers.inbox))
    console.print("Starting the Dagster UI ...")
    log = servers.config.state_folder / environment.FOLDER / "dagster.log"
    address = stack.enter_context(serving.dagster_ui(log, port))
    console.print(f"\nDagster UI: {address}\nInbox:      {pages}\nCtrl-C ends both.", soft_wrap=True)
    wait_for_one(received)
    console.print("Ending the servers ...")


def catch_signals() -> list[int]:
    """Collect SIGINT and SIGTERM from now on, in the list returned.

    A list and no `threading.Event`: its lock would be taken again by a second signal in the handler of the first, and
    never be free.
    """
    received: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: received.append(number))
    return received


def wait_for_one(received: list[int]) -> None:
    """Return soon after the first signal."""
    while not received:
        time.sleep(LOOK_EVERY_S)
