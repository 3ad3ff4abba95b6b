"""A run's sign of life: from its first step to its last, also while a step waits for its slot in the pool."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster import DagsterInstance
from support.pipeline import PipelineRunner, Registry
from support.smtpd import Smtpd
from support.waiting import wait_until

from token_pipelines import shipped
from token_pipelines.defs.build import JOB, build_defs
from token_pipelines.ledger import heartbeat

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")

POOL = "smtp"
SOMEBODY = "a run that sends at length"
BEAT = "SELECT heartbeat_at FROM token_pipelines.runs"
END = "SELECT ended_at FROM token_pipelines.runs"


@pytest.fixture
def instance(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsterInstance]:
    """Return the shipped instance: pools need Postgres."""
    storage = database_url.replace("postgresql://", "postgresql+psycopg2://", 1)
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", storage)
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_bytes(shipped.path("dagster.yaml").read_bytes())
    with DagsterInstance.from_config(str(home)) as instance:
        yield instance


def wait_for_a_beat(registry: Registry) -> None:
    before = registry.execute(BEAT)
    wait_until(lambda: registry.execute(BEAT) > before, what="a heartbeat")


def test_run_that_waits_for_its_slot_says_that_it_lives(
    tmp_path: Path, registry_url: str, instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the sensor would take it for killed, and its day would be asked for again, and again."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", 0.1)
    registry = Registry(registry_url)
    now = datetime.now(UTC)
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=now + timedelta(days=5))
    storage = instance.event_log_storage
    storage.initialize_concurrency_limit_to_default(POOL)
    assert storage.claim_concurrency_slot(POOL, SOMEBODY, "send").is_claimed
    beats: list[bool] = []

    def watch() -> None:
        try:
            wait_until(lambda: storage.get_concurrency_info(POOL).pending_step_count, seconds=60, what="waiting")
            for _ in range(3):
                wait_for_a_beat(registry)
                beats.append(True)
        finally:
            storage.free_concurrency_slots_for_run(SOMEBODY)

    watcher = threading.Thread(target=watch)
    with Smtpd() as server:
        config = PipelineRunner(tmp_path, registry_url, server.port).config
        watcher.start()
        result = (
            build_defs(config)
            .resolve_job_def(JOB)
            .execute_in_process(instance=instance, partition_key=str(config.schedule.today(now)), raise_on_error=False)
        )
        watcher.join()

    assert result.success
    assert beats == [True] * 3
    assert len(server.accepted) == 1
    [(ended,)] = registry.execute(END)
    [(beat,)] = registry.execute(BEAT)
    assert ended >= beat
    assert not [thread for thread in threading.enumerate() if thread.name == "ledger-heartbeat"]


def test_run_that_fails_says_that_it_has_ended(tmp_path: Path, registry_url: str, instance: DagsterInstance) -> None:
    registry = Registry(registry_url)
    now = datetime.now(UTC)
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=now + timedelta(days=5))
    config = PipelineRunner(tmp_path, registry_url, 1).config

    result = (
        build_defs(config)
        .resolve_job_def(JOB)
        .execute_in_process(instance=instance, partition_key=str(config.schedule.today(now)), raise_on_error=False)
    )

    assert not result.success
    [(ended,)] = registry.execute(END)
    assert ended is not None
    assert not [thread for thread in threading.enumerate() if thread.name == "ledger-heartbeat"]
