"""The Dagster definitions, run in this process: what is in them, a day's numbers, failures."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
from support.pipeline import DAY, NOW, MakePipeline, Registry
from support.smtpd import Action, Smtpd

from token_pipelines.config import Config
from token_pipelines.definitions import build_defs
from token_pipelines.defs.build import JOB

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")

TIERS = ("expired", "day", "week", "month")
IN_TWO_DAYS = NOW + 2 * DAY
TODAY = NOW.date()

Configure = Callable[..., Config]


@pytest.fixture
def configure(make_pipeline: MakePipeline) -> Configure:
    """Write and read a config whose relay listens at a port; keywords change its sections."""

    def make(port: int, **sections: Any) -> Config:  # noqa: ANN401 -- YAML
        return make_pipeline(port, **sections).config

    return make


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def key(tier: str) -> dg.AssetKey:
    return dg.AssetKey(["notices", tier])


def run(
    config: Config,
    instance: dg.DagsterInstance,
    *,
    day: date = TODAY,
    now: datetime = NOW,
    selection: Sequence[dg.AssetKey] | None = None,
) -> dg.ExecuteInProcessResult:
    """One run of the job for a day, at an instant."""
    definitions = build_defs(config, clock=lambda: now)
    result = definitions.resolve_job_def(JOB).execute_in_process(
        instance=instance,
        partition_key=day.isoformat(),
        asset_selection=selection,
        raise_on_error=False,
    )
    definitions.resources["pipeline"].ledger.close()  # type: ignore[index]
    return result


def numbers(metadata: Any) -> dict[str, Any]:  # noqa: ANN401 -- Dagster's mapping of metadata values
    return {name: value.value for name, value in metadata.items() if isinstance(value.value, int)}


def materialized(result: dg.ExecuteInProcessResult, asset: dg.AssetKey) -> dict[str, Any]:
    """The plain numbers of an asset's materialization in this run."""
    [found] = [
        event.step_materialization_data.materialization
        for event in result.get_asset_materialization_events()
        if event.asset_key == asset
    ]
    assert found.partition == TODAY.isoformat()
    return numbers(found.metadata)


def failures(result: dg.ExecuteInProcessResult) -> dict[str, str | None]:
    """Of each failed step, its description in the UI."""
    return {
        str(event.step_key): event.step_failure_data.user_failure_data
        and event.step_failure_data.user_failure_data.description
        for event in result.all_events
        if event.is_step_failure
    }


def checks(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], bool]:
    return {
        (evaluation.asset_key.to_user_string(), evaluation.check_name): evaluation.passed
        for evaluation in result.get_asset_check_evaluations()
    }


def sent_numbers(**outcomes: int) -> dict[str, int]:
    """What a tier's asset shows when only these happened."""
    every = dict.fromkeys(("due", "sent", "deferred", "failed", "unknown", "waiting", "skipped"), 0) | outcomes
    every["due"] = sum(count for name, count in every.items() if name != "due" and not name.startswith("skipped_"))
    return every


# What is in them


def test_definitions_hold_the_agreed_names(configure: Configure) -> None:
    definitions = build_defs(configure(25))
    assert {asset.key for asset in definitions.resolve_all_asset_specs()} == {
        dg.AssetKey("expiring_tokens"),
        *map(key, TIERS),
    }
    assert definitions.resolve_job_def(JOB).name == "daily_notices"
    repository = definitions.get_repository_def()
    assert {schedule.name for schedule in repository.schedule_defs} == {"daily"}
    assert {sensor.name for sensor in repository.sensor_defs} >= {"backfill_missed_days"}
    assert {(check.asset_key.to_user_string(), check.name) for check in repository.asset_graph.asset_check_keys} >= {
        ("expiring_tokens", "volume_is_plausible"),
        *((f"notices/{tier}", "everyone_was_told") for tier in TIERS),
    }
    dg.Definitions.validate_loadable(definitions)


def test_definitions_touch_neither_database_nor_relay(configure: Configure, closed_port: int) -> None:
    """Dagster loads them over and over; the databases may be away at that moment."""
    away = f"postgresql://reader@127.0.0.1:{closed_port}/registry"
    build_defs(configure(closed_port, source={"url": away}, ledger={"url": away}))


def test_definitions_with_a_single_tier_load_and_run(
    configure: Configure, registry: Registry, instance: dg.DagsterInstance
) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=IN_TWO_DAYS)
    with Smtpd() as relay:
        config = configure(relay.port, tiers=[{"name": "week", "before": "7d"}])
        assert run(config, instance).success
    assert len(relay.accepted) == 1


# Dagster's own builder of schedules calls what Dagster has deprecated.
@pytest.mark.filterwarnings("ignore:Function `JobDefinition.run_request_for_partition` is deprecated")
@pytest.mark.parametrize(
    ("zone", "tick", "day"),
    [
        ("UTC", datetime(2026, 11, 20, 9, 30, tzinfo=UTC), "2026-11-20"),
        ("Europe/Berlin", datetime(2026, 11, 20, 8, 30, tzinfo=UTC), "2026-11-20"),
        ("Europe/Berlin", datetime(2026, 7, 1, 7, 30, tzinfo=UTC), "2026-07-01"),
        ("Pacific/Auckland", datetime(2026, 11, 19, 20, 30, tzinfo=UTC), "2026-11-20"),
    ],
)
def test_schedule_runs_the_day_that_has_begun(configure: Configure, zone: str, tick: datetime, day: str) -> None:
    definitions = build_defs(configure(25, schedule={"at": "09:30", "timezone": zone}))
    [schedule] = definitions.get_repository_def().schedule_defs
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 9 * * *", zone)
    context = dg.build_schedule_context(scheduled_execution_time=tick, repository_def=definitions.get_repository_def())
    ticked = schedule.evaluate_tick(context)
    assert [request.partition_key for request in ticked.run_requests or []] == [day]
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING


def test_days_reach_from_the_start_date_to_today(configure: Configure) -> None:
    definitions = build_defs(configure(25), clock=lambda: NOW)
    [spec] = [spec for spec in definitions.resolve_all_asset_specs() if spec.key == dg.AssetKey("expiring_tokens")]
    assert spec.partitions_def is not None
    now = datetime(2026, 11, 20, 0, 30, tzinfo=UTC)
    days = spec.partitions_def.get_partition_keys(current_time=now)
    assert (days[0], days[-1]) == ("2026-01-01", "2026-11-20")


# A day


def test_run_gives_its_numbers(
    configure: Configure, registry: Registry, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    ada, bob, eve = (registry.user(name, email=f"{name}@example.org") for name in ("ada", "bob", "eve"))
    nowhere = registry.user("nowhere")
    for user in (ada, ada, bob, nowhere):
        registry.token(user, expires_at=IN_TWO_DAYS)
    registry.token(eve, expires_at=NOW + 20 * DAY)
    registry.token(eve, expires_at=NOW + 5 * DAY, revoked=True)
    with Smtpd() as relay:
        result = run(configure(relay.port), instance)
    assert result.success
    snapshot = materialized(result, dg.AssetKey("expiring_tokens"))
    assert {name: snapshot[name] for name in ("examined", "due", "recipients_due", "rows")} == {
        "examined": 6,
        "due": 4,
        "recipients_due": 3,
        "rows": 6,
    }
    assert {name: count for name, count in snapshot.items() if name.startswith("reason_") and count} == {
        "reason_no_address": 1,
        "reason_revoked": 1,
    }
    tiers = {tier: materialized(result, key(tier)) for tier in TIERS}
    assert tiers == {
        "expired": sent_numbers(),
        "day": sent_numbers(sent=2, skipped=1, skipped_no_address=1),
        "week": sent_numbers(),
        "month": sent_numbers(sent=1),
    }
    assert checks(result) == dict.fromkeys(checks(result), True)
    assert len(checks(result)) >= 5
    file = tmp_path / ".token_pipelines" / "parquet" / "expiring_tokens" / "2026-11-20.parquet"
    table = pq.read_table(file)
    assert table.num_rows == 6
    assert "email" not in table.column_names


def test_run_of_nothing_succeeds_with_zeros(
    configure: Configure, instance: dg.DagsterInstance, closed_port: int
) -> None:
    result = run(configure(closed_port), instance)
    assert result.success
    assert materialized(result, dg.AssetKey("expiring_tokens"))["examined"] == 0
    assert {tier: materialized(result, key(tier)) for tier in TIERS} == dict.fromkeys(TIERS, sent_numbers())


def test_tiers_are_sent_most_urgent_first(
    configure: Configure, registry: Registry, instance: dg.DagsterInstance
) -> None:
    for name, left in [("month", 20 * DAY), ("expired", -DAY), ("week", 5 * DAY), ("day", DAY)]:
        registry.token(registry.user(name, email=f"{name}@example.org"), expires_at=NOW + left)
    with Smtpd() as relay:
        assert run(configure(relay.port), instance).success
    assert [accepted.recipient.partition("@")[0] for accepted in relay.accepted] == list(TIERS)


def test_recipients_own_trouble_leaves_the_tier_green_and_shows_in_its_check(
    configure: Configure, registry: Registry, instance: dg.DagsterInstance
) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=IN_TWO_DAYS)
    with Smtpd(script=lambda stage, _: Action(code=450) if stage == "rcpt" else None) as relay:
        result = run(configure(relay.port), instance)
    assert result.success
    assert materialized(result, key("day")) == sent_numbers(deferred=1)
    told = {asset: passed for (asset, name), passed in checks(result).items() if name == "everyone_was_told"}
    assert told == {"notices/expired": True, "notices/day": False, "notices/week": True, "notices/month": True}


# A tier that fails


def two_tiers(registry: Registry) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=IN_TWO_DAYS)
    registry.token(registry.user("bob", email="bob@example.org"), expires_at=NOW + 20 * DAY)


def test_tier_fails_alone_in_one_sentence_and_keeps_its_numbers(
    configure: Configure, registry: Registry, instance: dg.DagsterInstance
) -> None:
    """The relay refuses the sender for one tier's recipients only; the other tier is sent."""
    two_tiers(registry)

    def script(stage: str, argument: str) -> Action | None:
        return Action(code=550, text="5.7.1 policy") if stage == "rcpt" and "ada" in argument else None

    with Smtpd(script=script) as relay:
        config = configure(relay.port)
        result = run(config, instance)
        assert not result.success
        [(step, said)] = failures(result).items()
        assert step.endswith("send_day")
        assert said == (
            f"The relay 127.0.0.1:{relay.port} answered 550 5.7.1 policy at RCPT TO; fix what its reply names (sender,"
            " login, SPF, DKIM or reputation)."
        )
        assert [accepted.recipient for accepted in relay.accepted] == ["bob@example.org"]
    assert materialized(result, key("month")) == sent_numbers(sent=1)
    assert {event.asset_key for event in result.get_asset_materialization_events()} == {
        dg.AssetKey("expiring_tokens"),
        *map(key, set(TIERS) - {"day"}),
    }
    [observation] = instance.fetch_observations(key("day"), limit=10).records
    assert observation.asset_observation is not None
    assert observation.asset_observation.partition == "2026-11-20"
    assert numbers(observation.asset_observation.metadata) == sent_numbers(deferred=1)
    with Smtpd() as relay:
        again = run(configure(relay.port), instance, selection=[key("day")])
    assert again.success
    assert materialized(again, key("day")) == sent_numbers(sent=1)
    assert [accepted.recipient for accepted in relay.accepted] == ["ada@example.org"]
    assert {event.asset_key for event in again.get_asset_materialization_events()} == {key("day")}


def test_relay_down_fails_the_tiers_with_something_to_send(
    configure: Configure, registry: Registry, instance: dg.DagsterInstance, closed_port: int
) -> None:
    two_tiers(registry)
    result = run(configure(closed_port), instance)
    assert not result.success
    said = f"The relay 127.0.0.1:{closed_port} refuses connections; check smtp.port, and that the relay runs."
    assert {step.rpartition(".")[2]: text for step, text in failures(result).items()} == {
        "send_day": said,
        "send_month": said,
    }


def test_failure_shows_no_chain_of_causes(
    configure: Configure, registry: Registry, instance: dg.DagsterInstance, closed_port: int
) -> None:
    two_tiers(registry)
    result = run(configure(closed_port), instance)
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            assert error is None or (error.cause is None and error.context is None)


def test_tier_run_alone_without_the_days_file_reads_it_again(
    configure: Configure, registry: Registry, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    two_tiers(registry)
    with Smtpd() as relay:
        config = configure(relay.port)
        run(config, instance, selection=[dg.AssetKey("expiring_tokens")])
        (tmp_path / ".token_pipelines" / "parquet" / "expiring_tokens" / "2026-11-20.parquet").unlink()
        result = run(config, instance, selection=[key("month")])
    assert result.success
    assert [accepted.recipient for accepted in relay.accepted] == ["bob@example.org"]


def test_source_away_fails_the_snapshot_and_nothing_is_sent(
    configure: Configure, registry: Registry, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    two_tiers(registry)
    (tmp_path / "tokens.sql").write_text(
        "SELECT id AS token_id FROM api_tokens WHERE expired_at >= :expires_after AND expired_at < :expires_before"
    )
    with Smtpd() as relay:
        result = run(configure(relay.port, source={"query": "tokens.sql"}), instance)
        assert relay.connections == 0
    assert failures(result) == {
        "expiring_tokens": "The source query does not return recipient_id; add it to the SELECT (docs/sources tells"
        " what it means)."
    }
    assert not (tmp_path / ".token_pipelines" / "parquet" / "expiring_tokens").is_dir() or not list(
        (tmp_path / ".token_pipelines" / "parquet" / "expiring_tokens").iterdir()
    )


def test_future_day_is_refused(configure: Configure, registry: Registry, instance: dg.DagsterInstance) -> None:
    two_tiers(registry)
    with Smtpd() as relay:
        result = run(configure(relay.port), instance, now=NOW - timedelta(days=1))
        assert relay.connections == 0
    assert failures(result) == {
        "expiring_tokens": "2026-11-20 has not come yet; run it on that day, or rehearse it with --now."
    }
    assert not result.get_asset_materialization_events()


def test_check_warns_where_nobody_of_those_who_were_due_was_told(
    configure: Configure, registry: Registry, instance: dg.DagsterInstance
) -> None:
    for name in ("ada", "bob"):
        registry.token(registry.user(name), expires_at=IN_TWO_DAYS)
    eve = registry.user("eve", email="eve@example.org")
    registry.token(registry.user("dan"), expires_at=NOW + 20 * DAY)
    registry.token(eve, expires_at=NOW + 20 * DAY)
    with Smtpd() as relay:
        result = run(configure(relay.port), instance)
    [warned] = [found for found in result.get_asset_check_evaluations() if not found.passed]
    assert (warned.asset_key, warned.check_name) == (key("day"), "everyone_was_told")
    assert warned.severity is dg.AssetCheckSeverity.WARN
    assert warned.description == "Nobody of the 2 who were due was told. Skipped: no_address 2."


@pytest.mark.parametrize(("delivery", "count"), [({}, 5), ({"mode": "dry_run"}, 1)])
def test_freshness_covers_every_tier_that_a_run_completes(
    configure: Configure, delivery: dict[str, str], count: int
) -> None:
    specs = build_defs(configure(25, delivery=delivery)).resolve_all_asset_specs()
    assert len([spec for spec in specs if spec.freshness_policy is not None]) == count
