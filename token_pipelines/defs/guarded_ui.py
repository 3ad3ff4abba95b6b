"""Dagster's UI for the demo: ``dagster dev`` and its webserver, with the web filter around the webserver.

``python -m token_pipelines.defs.guarded_ui dev …`` and ``… webserver …`` take the options of ``dagster dev`` and
``dagster-webserver``. Dagster has no setting for middleware, so one function of each is replaced. `demo.serving` asks
the finished server whether the filter is there, and does not go on without it.
"""

import sys
from typing import Any, Final

from dagster._cli import dev
from dagster_shared.ipc import open_ipc_subprocess
from dagster_webserver import cli
from dagster_webserver.app import create_app_from_workspace_process_context

from token_pipelines.demo.web_filter import WebFilter

MODULE: Final = "token_pipelines.defs.guarded_ui"
WEBSERVER: Final = "dagster_webserver"

_start = open_ipc_subprocess
_create = create_app_from_workspace_process_context


def _start_guarded(parts: list[str], **options: Any) -> Any:  # noqa: ANN401 -- Dagster's own
    """Start one of ``dagster dev``'s processes, and instead of the webserver the guarded one."""
    if WEBSERVER in parts:
        at = parts.index(WEBSERVER)
        parts = [*parts[:at], MODULE, "webserver", *parts[at + 1 :]]
    return _start(parts, **options)


def _create_guarded(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 -- Dagster's own
    """The webserver's application, with the filter around it."""
    return WebFilter(_create(*arguments, **options))


def main() -> None:
    """Run what the first argument names."""
    commands = {"dev": dev.dev_command, "webserver": cli.dagster_webserver}
    name = sys.argv.pop(1)
    commands[name](prog_name=name)


if __name__ == "__main__":
    vars(dev)[open_ipc_subprocess.__name__] = _start_guarded
    vars(cli)[create_app_from_workspace_process_context.__name__] = _create_guarded
    main()
