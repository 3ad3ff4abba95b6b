"""A day without an orchestrator: its steps, what they say, and what they leave when one of them fails."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.pipeline import DAY, NOW, PipelineRunner, Registry
from support.smtpd import Action, Smtpd

from token_pipelines.day import collect, read_tokens, run_day
from token_pipelines.errors import RelayError, SourceContractError
from token_pipelines.ledger.heartbeat import LEASE
from token_pipelines.pipeline import Pipeline
from token_pipelines.planning import SnapshotCounts, no_tokens

Open = Callable[..., Pipeline]


@pytest.fixture
def relay() -> Iterator[Smtpd]:
    """A relay that refuses us as soon as it hears of ada."""

    def script(stage: str, argument: str) -> Action | None:
        return Action(code=550, text="5.7.1 policy") if stage == "rcpt" and "ada" in argument else None

    with Smtpd(script=script) as relay:
        yield relay


@pytest.fixture
def pipeline(tmp_path: Path, registry: Registry, relay: Smtpd) -> Iterator[Pipeline]:
    pipeline = PipelineRunner(tmp_path, registry.url, relay.port).parts(NOW)
    with closing(pipeline.ledger):
        pipeline.ledger.migrate()
        yield pipeline


def expiring(registry: Registry, **days_left: int) -> None:
    for name, days in days_left.items():
        registry.token(registry.user(name, email=f"{name}@example.org"), expires_at=NOW + days * DAY)


def test_day_goes_on_with_the_next_tier_when_one_is_stopped(
    pipeline: Pipeline, registry: Registry, relay: Smtpd
) -> None:
    expiring(registry, ada=2, bob=5, eve=20)

    result = run_day(pipeline, run_id="run-1")

    assert [isinstance(error, RelayError) for error in result.troubles] == [True]
    assert {tier: (report.sent, report.deferred) for tier, report in result.tiers.items()} == {
        "expired": (0, 0),
        "day": (0, 1),
        "week": (1, 0),
        "month": (1, 0),
    }
    assert (result.counts.examined, result.counts.due) == (3, 3)
    assert [mail.recipient for mail in relay.accepted] == ["bob@example.org", "eve@example.org"]


def test_day_of_chosen_tiers_sends_these_most_urgent_first(
    pipeline: Pipeline, registry: Registry, relay: Smtpd
) -> None:
    expiring(registry, zoe=2, bob=5, eve=20)

    result = run_day(pipeline, run_id="run-1", tiers=["month", "day"])

    assert list(result.tiers) == ["day", "month"]
    assert [mail.recipient for mail in relay.accepted] == ["zoe@example.org", "eve@example.org"]


def test_day_that_cannot_be_read_sends_nothing(tmp_path: Path, registry: Registry, relay: Smtpd) -> None:
    expiring(registry, bob=5)
    (tmp_path / "tokens.sql").write_text(
        "SELECT id AS token_id FROM api_tokens WHERE expired_at >= :expires_after AND expired_at < :expires_before"
    )
    with pytest.raises(SourceContractError):
        PipelineRunner(tmp_path, registry.url, relay.port, source={"query": "tokens.sql"}).run(NOW)
    assert relay.connections == 0


def test_day_keeps_its_heartbeat_from_the_first_step_on(
    pipeline: Pipeline, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading may take minutes, and a run that is silent for longer than the lease counts as killed."""
    running: list[int] = []
    snapshot = pipeline.source.snapshot

    def watched(*arguments: object) -> object:
        running.append(len(registry.execute("SELECT 1 FROM token_pipelines.runs WHERE ended_at IS NULL")))
        return snapshot(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline.source, "snapshot", watched)

    run_day(pipeline, run_id="run-1")

    assert running == [1], f"within {LEASE} it must be heard of"
    assert registry.execute("SELECT ended_at IS NOT NULL FROM token_pipelines.runs") == [(True,)]


def test_day_tells_its_story_without_addresses(
    pipeline: Pipeline, registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    expiring(registry, ada=2, bob=5)
    registry.token(registry.user("nowhere"), expires_at=NOW + 20 * DAY)
    caplog.set_level(logging.INFO, "token_pipelines.day")

    run_day(pipeline, run_id="run-1", tiers=["day", "week", "month"])

    lines = [record.getMessage() for record in caplog.records if record.name == "token_pipelines.day"]
    assert [(line.partition(" in ")[0], line.partition(" s. ")[2]) for line in lines] == [
        ("2026-11-20: read 3 tokens", "Due: day 1, week 1. Not due: no_address 1."),
        ("2026-11-20: planned", "To send: day 1, week 1."),
        ("day: 0 sent, 1 deferred, 0 failed, 0", "Skipped: none."),
        ("week: 1 sent, 0 deferred, 0 failed, 0", "Skipped: none."),
        ("month: 0 sent, 0 deferred, 0 failed, 0", "Skipped: no_address 1."),
    ]
    assert not any("@" in line for line in lines)


def test_tokens_of_a_day_without_any_have_the_columns_of_other_days(pipeline: Pipeline) -> None:
    counts = SnapshotCounts()

    tokens = collect(pipeline, read_tokens(pipeline, day=NOW.date(), counts=counts))

    assert tokens.dtypes.to_dict() == no_tokens(pipeline).dtypes.to_dict()
    assert (len(tokens), counts.examined) == (0, 0)
