"""The story of a day in the log of its Dagster run: no line of it names an address."""

import logging
from pathlib import Path

import pytest
from dagster import DagsterInstance
from support.pipeline import DAY, NOW, PipelineRunner, Registry
from support.smtpd import Smtpd

from token_pipelines import day
from token_pipelines.defs.build import JOB, build_defs
from token_pipelines.defs.run_log import RunLog

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")

STORY = logging.getLogger(day.__name__)


def said(instance: DagsterInstance, run_id: str) -> list[tuple[str | None, str]]:
    """What a run's log has at INFO from ourselves: the step and the line, without its seconds."""
    entries = instance.all_logs(run_id)
    ours = [entry for entry in entries if entry.dagster_event is None and entry.level == logging.INFO]
    return [(entry.step_key, entry.user_message) for entry in ours]


def test_run_log_tells_the_story_of_the_day(registry_url: str, tmp_path: Path) -> None:
    registry = Registry(registry_url)
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 2 * DAY)
    registry.token(registry.user("nowhere"), expires_at=NOW + 20 * DAY)
    with Smtpd() as relay, DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        config = PipelineRunner(tmp_path, registry_url, relay.port).config
        result = (
            build_defs(config, clock=lambda: NOW)
            .resolve_job_def(JOB)
            .execute_in_process(instance=instance, partition_key=str(NOW.date()))
        )
        lines = said(instance, result.run_id)

    told = [(step, line.partition(" in ")[0], line.partition(" s. ")[2]) for step, line in lines]
    nothing = "0 sent, 0 deferred, 0 failed, 0"
    assert told == [
        ("expiring_tokens", "2026-11-20: read 2 tokens", "Due: day 1. Not due: no_address 1."),
        ("notices.partition_by_tier", "2026-11-20: planned", "To send: day 1."),
        ("notices.send_expired", f"expired: {nothing}", "Skipped: none."),
        ("notices.send_day", "day: 1 sent, 0 deferred, 0 failed, 0", "Skipped: none."),
        ("notices.send_week", f"week: {nothing}", "Skipped: none."),
        ("notices.send_month", f"month: {nothing}", "Skipped: no_address 1."),
    ]
    assert "@" not in "".join(line for _, line in lines)
    assert STORY.level == logging.NOTSET
    assert STORY.handlers == []


def test_run_whose_log_cannot_be_written_goes_on(
    registry_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(registry_url)
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 2 * DAY)
    full = logging.Logger("full")  # noqa: LOG001 -- none that others could find
    monkeypatch.setattr(full, "log", lambda *_: 1 / 0)
    follow = RunLog.follow
    monkeypatch.setattr(RunLog, "follow", lambda handler, _log: follow(handler, full))
    with Smtpd() as relay, DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        config = PipelineRunner(tmp_path, registry_url, relay.port).config
        result = (
            build_defs(config, clock=lambda: NOW)
            .resolve_job_def(JOB)
            .execute_in_process(instance=instance, partition_key=str(NOW.date()))
        )

    assert result.success
    assert len(relay.accepted) == 1
