"""What the UI and the command line show when source.on_sent fails: the tier stays green, its check warns."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from support.commands import Command
from support.pipeline import DAY, NOW, PipelineRunner, Registry, write_config
from support.smtpd import Smtpd

from token_pipelines.definitions import build_defs
from token_pipelines.defs.build import JOB

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")

BROKEN = "UPDATE api_tokens SET no_such_column = :sent_at WHERE id IN :token_ids"
WORKING = "UPDATE api_tokens SET expiry_notification_at = :sent_at WHERE id IN :token_ids"
SAYS = 'column "no_such_column" of relation "api_tokens" does not exist'


def day_tier(url: str, folder: Path, on_sent: str | None) -> tuple[bool, dict[str, Any], list[dg.AssetCheckEvaluation]]:
    """Run a day, and give of the tier `day` whether it went well, its metadata and its check."""
    with Smtpd() as relay, dg.DagsterInstance.ephemeral() as instance:
        config = PipelineRunner(folder, url, relay.port, source={"on_sent": on_sent}).config
        definitions = build_defs(config, clock=lambda: NOW)
        result = definitions.resolve_job_def(JOB).execute_in_process(
            instance=instance, partition_key=NOW.date().isoformat(), raise_on_error=False
        )
        definitions.resources["pipeline"].ledger.close()  # type: ignore[index]
    key = dg.AssetKey(["notices", "day"])
    [event] = [found for found in result.get_asset_materialization_events() if found.asset_key == key]
    metadata = event.step_materialization_data.materialization.metadata
    values = {name: value.value for name, value in metadata.items() if name.endswith(("_back", "_fault"))}
    evaluations = result.get_asset_check_evaluations()
    checks = [found for found in evaluations if found.check_name == "source_is_updated" and found.asset_key == key]
    return result.success, values, checks


def test_failed_write_back_warns_and_leaves_the_tier_green(registry_url: str, tmp_path: Path) -> None:
    registry = Registry(registry_url)
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 2 * DAY)
    success, values, [check] = day_tier(registry_url, tmp_path, BROKEN)
    assert (success, values["not_written_back"], check.passed) == (True, 1, False)
    assert SAYS in values["write_back_fault"]
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert check.description == (
        f"The source was not told of 1 sent notice; later runs try again. {values['write_back_fault']}"
    )
    success, values, [check] = day_tier(registry_url, tmp_path, WORKING)
    assert (success, values, check.passed, check.description) == (True, {"not_written_back": 0}, True, None)


def test_nothing_of_it_shows_without_a_statement(registry_url: str, tmp_path: Path) -> None:
    assert day_tier(registry_url, tmp_path, None) == (True, {}, [])


def test_command_line_says_it_once_and_ends_well(command: Command, dagster_url: str, tmp_path: Path) -> None:
    """Exit status 0: everything that was due was delivered."""
    registry = Registry(dagster_url)
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 2 * DAY)
    run: Callable[[], Any] = lambda: command("run", "--date", "2026-11-20", "--now", "2026-11-20T09:00:00Z", "--json")  # noqa: E731
    with Smtpd() as relay:
        write_config(tmp_path, dagster_url, relay.port, source={"on_sent": BROKEN})
        said = run()
        write_config(tmp_path, dagster_url, relay.port, source={"on_sent": WORKING})
        again = run()
    assert (said.status, again.status, again.err) == (0, 0, "")
    assert json.loads(said.out)["tiers"]["day"]["not_written_back"] == 1
    assert json.loads(again.out)["tiers"]["day"]["not_written_back"] == 0
    [sentence] = [
        line for line in said.err.splitlines() if line.startswith("The source was not told of 1 sent notice;")
    ]
    assert SAYS in sentence
    assert len(relay.accepted) == 1
