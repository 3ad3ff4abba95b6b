"""Several pipelines in one code location: their names, a day of one that leaves the other alone, the command line."""

import json
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from support.commands import Command
from support.pipeline import DAY, NOW, PipelineRunner, Registry, write_config
from support.smtpd import Smtpd

from token_pipelines.config import Config, load_all
from token_pipelines.definitions import CONFIG_VARIABLE, build_all_defs, build_defs
from token_pipelines.definitions import defs as code_location
from token_pipelines.defs.build import relay_pools

pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning")

TODAY = NOW.date().isoformat()
RUN = ("run", "--json", "--now", "2026-11-20T09:00:00Z")
NAMES = ("user_tokens", "deploy_keys")
OF_KEYS = {"tiers": [{"name": "week", "before": "7d"}, {"name": "soon", "remaining": "10%", "at_most": "60d"}]}

Configure = Callable[..., Path]


@pytest.fixture
def configure(tmp_path: Path, dagster_url: str) -> Configure:
    """Write a config of two pipelines that read the same tokens; keywords are sections of the second."""

    def make(port: int = 25, **of_keys: Any) -> Path:  # noqa: ANN401 -- YAML
        pipelines = {"user_tokens": {}, "deploy_keys": OF_KEYS | of_keys}
        return write_config(tmp_path, dagster_url, port, pipelines=pipelines)

    return make


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def someone(registry: Registry) -> str:
    """Somebody whose token expires in five days: in the tier week of both."""
    return registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 5 * DAY)


def configs(path: Path) -> list[Config]:
    return list(load_all(path).values())


# What is in the code location


def test_everything_is_named_after_its_pipeline(configure: Configure) -> None:
    definitions = build_all_defs(configs(configure()))
    dg.Definitions.validate_loadable(definitions)
    assert {spec.key.to_user_string(): spec.group_name for spec in definitions.resolve_all_asset_specs()} == {
        "user_tokens/expiring_tokens": "user_tokens",
        "user_tokens/notices/expired": "user_tokens",
        "user_tokens/notices/day": "user_tokens",
        "user_tokens/notices/week": "user_tokens",
        "user_tokens/notices/month": "user_tokens",
        "deploy_keys/expiring_tokens": "deploy_keys",
        "deploy_keys/notices/week": "deploy_keys",
        "deploy_keys/notices/soon": "deploy_keys",
    }
    repository = definitions.get_repository_def()
    for name in NAMES:
        job = repository.get_job(f"{name}__daily_notices")
        assert {key.path[0] for key in job.asset_layer.executable_asset_keys} == {name}
        assert {check.asset_key.path[0] for check in job.asset_layer.asset_graph.asset_check_keys} == {name}
    assert {schedule.name for schedule in repository.schedule_defs} == {f"{name}__daily" for name in NAMES}
    assert {sensor.name for sensor in repository.sensor_defs} >= {f"{name}__backfill_missed_days" for name in NAMES}
    assert {(check.asset_key.to_user_string(), check.name) for check in repository.asset_graph.asset_check_keys} >= {
        (f"{name}/{asset}", check)
        for name in NAMES
        for asset, check in [
            ("expiring_tokens", "volume_is_plausible"),
            ("expiring_tokens", "few_bounces"),
            ("notices/week", "everyone_was_told"),
        ]
    }


def test_code_location_holds_every_pipeline_of_the_file(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(configure()))
    found = code_location().get_repository_def()
    assert {job.name for job in found.get_all_jobs()} >= {f"{name}__daily_notices" for name in NAMES}


def test_single_pipeline_keeps_its_bare_names(tmp_path: Path, dagster_url: str) -> None:
    config = PipelineRunner(tmp_path, dagster_url, 25).config
    alone, among_all = (defs.get_repository_def() for defs in (build_defs(config), build_all_defs([config])))
    for repository in (alone, among_all):
        assert {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()} == {
            "expiring_tokens",
            *(f"notices/{tier}" for tier in ("expired", "day", "week", "month")),
        }
        assert set(repository.get_job("daily_notices").graph.node_dict) >= {"expiring_tokens", "notices"}
        ops = repository.get_job("daily_notices").graph.node_named("notices").definition.node_dict  # type: ignore[attr-defined]
        assert set(ops) == {"partition_by_tier", "send_expired", "send_day", "send_week", "send_month"}
        assert {schedule.name for schedule in repository.schedule_defs} == {"daily"}
        resources = {"pipeline", "overrides", "heartbeat", "run_log", "parquet", "shares"}
        assert set(repository.get_top_level_resources()) == resources


def test_relays_share_a_pool_when_they_are_one(configure: Configure) -> None:
    def pools(**of_keys: Any) -> list[str]:  # noqa: ANN401 -- YAML
        return relay_pools(configs(configure(**of_keys)))

    assert pools() == ["smtp", "smtp"]
    assert pools(smtp={"connections": 1, "rate": "1/s"}) == ["smtp", "smtp"]
    assert pools(smtp={"port": 26}) == ["smtp", "smtp__deploy_keys"]
    assert pools(smtp={"host": "relay.example.org"}) == ["smtp", "smtp__deploy_keys"]


def test_sending_ops_take_the_pool_of_their_relay(configure: Configure) -> None:
    repository = build_all_defs(configs(configure(smtp={"port": 26}))).get_repository_def()
    pools = {
        name: repository.get_job(f"{name}__daily_notices")
        .graph.node_named(f"{name}__notices")
        .definition.node_named(f"{name}__send_week")  # type: ignore[attr-defined]
        .definition.pool
        for name in NAMES
    }
    assert pools == {"user_tokens": "smtp", "deploy_keys": "smtp__deploy_keys"}


# A day of one


def run(definitions: dg.Definitions, name: str, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = definitions.resolve_job_def(f"{name}__daily_notices")
    return job.execute_in_process(instance=instance, partition_key=TODAY)


def done(instance: dg.DagsterInstance, *path: str) -> set[str]:
    return instance.get_materialized_partitions(dg.AssetKey(path))


def test_day_of_one_leaves_the_other_alone(
    configure: Configure, registry: Registry, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    someone(registry)
    with Smtpd() as relay:
        path = configure(relay.port)
        definitions = build_all_defs(configs(path), clock=lambda: NOW)
        assert run(definitions, "user_tokens", instance).success
        assert len(relay.accepted) == 1
        assert done(instance, "user_tokens", "notices", "week") == {TODAY}
        assert done(instance, "deploy_keys", "expiring_tokens") == set()
        assert PipelineRunner.named(path, "deploy_keys").history() == []
        assert run(definitions, "deploy_keys", instance).success
        assert len(relay.accepted) == 2
    kept = {file.relative_to(tmp_path / ".token_pipelines/parquet").parts[0] for file in tmp_path.rglob("*.parquet")}
    assert kept == set(NAMES)
    histories = [PipelineRunner.named(path, name).history() for name in NAMES]
    assert [[entry["tier"] for entry in history] for history in histories] == [["week"], ["week"]]


def test_missed_day_is_asked_for_of_the_pipeline_that_missed_it(
    configure: Configure, registry: Registry, instance: dg.DagsterInstance
) -> None:
    someone(registry)
    with Smtpd() as relay:
        path = configure(relay.port, schedule={"lookback_days": 1}, delivery={"max_notices": 1})
        definitions = build_all_defs(configs(path), clock=lambda: NOW + DAY / 2)
        assert run(definitions, "user_tokens", instance).success
    asked: dict[str, dict[str | None, set[str]]] = {}
    for name in NAMES:
        context = dg.build_sensor_context(instance=instance, definitions=definitions)
        ticked = definitions.resolve_sensor_def(f"{name}__backfill_missed_days").evaluate_tick(context)
        asked[name] = {
            request.partition_key: {key.path[0] for key in request.asset_selection or []}
            for request in ticked.run_requests or []
        }
    yesterday = (NOW - DAY).date().isoformat()
    assert asked["user_tokens"].get(TODAY) is None
    assert asked["deploy_keys"] == {TODAY: {"deploy_keys"}, yesterday: {"deploy_keys"}}


# The command line


def test_run_of_each_by_the_command_line(command: Command, configure: Configure, registry: Registry) -> None:
    someone(registry)
    with Smtpd() as relay:
        configure(relay.port)
        said = {name: command(*RUN, "--pipeline", name) for name in NAMES}
        again = command(*RUN, "--pipeline", "user_tokens", "--tier", "week")
    reports = {name: json.loads(one.out) for name, one in said.items()}
    assert {name: (report["pipeline"], report["status"]) for name, report in reports.items()} == {
        name: (name, "success") for name in NAMES
    }
    assert set(reports["deploy_keys"]["tiers"]) == {"week", "soon"}
    assert [reports[name]["tokens"]["due"] for name in NAMES] == [1, 1]
    assert [reports[name]["tiers"]["week"]["sent"] for name in NAMES] == [1, 1]
    assert json.loads(again.out)["tiers"]["week"]["sent"] == 0
    assert len(relay.accepted) == 2
    lines = [json.loads(command("history", "--json", "--pipeline", name).out) for name in NAMES]
    assert lines[0]["notice_id"] != lines[1]["notice_id"]


def test_run_of_a_single_pipeline_names_none(command: Command, tmp_path: Path, dagster_url: str) -> None:
    with Smtpd() as relay:
        write_config(tmp_path, dagster_url, relay.port)
        assert "pipeline" not in json.loads(command(*RUN).out)
        refused = command(*RUN, "--pipeline", "user_tokens")
    assert (refused.status, refused.out) == (2, "")
    assert refused.err == (
        "token_pipelines.yaml holds a single pipeline, which has no name; leave out --pipeline user_tokens.\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        RUN,
        ("history",),
        ("mark-notified", "--before", "2026-11-20T09:00:00Z"),
        ("preview",),
        ("suppress", "list"),
        ("suppress", "add", "ada@example.org"),
        ("bounces", "-"),
        ("forecast",),
        ("forecast", "--json"),
        ("source", "check"),
        ("source", "check", "--json"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_command_asks_for_the_pipeline(command: Command, configure: Configure, arguments: tuple[str, ...]) -> None:
    configure()
    said = command(*arguments)
    assert (said.status, said.out) == (2, "")
    cure = "choose one with --pipeline: user_tokens, deploy_keys.\n"
    assert said.err == f"token_pipelines.yaml holds several pipelines; {cure}"
    said = command(*arguments, "--pipeline", "deploy_kyes")
    assert (said.status, said.out) == (2, "")
    assert said.err == f"token_pipelines.yaml holds no pipeline deploy_kyes; {cure}"


def test_demo_leaves_several_pipelines_alone(command: Command, configure: Configure) -> None:
    configure()
    said = command("demo", "--once")
    assert said.status == 2
    assert said.err == (
        "token_pipelines.yaml holds several pipelines, which the demo cannot run; name another file with --config.\n"
    )


def test_suppression_and_mark_are_of_the_pipeline_named(command: Command, configure: Configure) -> None:
    configure()
    assert command("suppress", "add", "ada@example.org", "--pipeline", "user_tokens").status == 0
    asked = ["suppress", "check", "ada@example.org", "--json", "--pipeline"]
    assert [json.loads(command(*asked, name).out)["suppressed"] for name in NAMES] == [True, False]


def test_marking_one_as_notified_leaves_the_other_due(
    command: Command, configure: Configure, registry: Registry
) -> None:
    someone(registry)
    with Smtpd() as relay:
        configure(relay.port)
        assert command("mark-notified", "--before", "2026-11-20T09:00:00Z", "--pipeline", "user_tokens").status == 0
        sent = [json.loads(command(*RUN, "--pipeline", name).out)["tiers"]["week"]["sent"] for name in NAMES]
    assert sent == [0, 1]


def test_preview_shows_the_pipelines_own_tiers(command: Command, configure: Configure, tmp_path: Path) -> None:
    configure()
    assert command("preview", "--pipeline", "deploy_keys", "--out", str(tmp_path / "out")).status == 0
    text = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "Tier soon" in text
    assert "Tier month" not in text


def test_approval_tells_the_option_that_is_needed(command: Command, configure: Configure, registry: Registry) -> None:
    for name in ("ada", "bob"):
        registry.token(registry.user(name, email=f"{name}@example.org"), expires_at=NOW + 2 * DAY)
    with Smtpd() as relay:
        configure(relay.port, delivery={"max_notices": 1})
        said = command(*RUN, "--pipeline", "deploy_keys")
        assert "token-pipelines run --pipeline deploy_keys --approve-volume" in said.err
        assert command(*RUN, "--pipeline", "user_tokens").status == 0
        assert command(*RUN, "--pipeline", "deploy_keys", "--approve-volume").status == 0
    assert date.fromisoformat(json.loads(said.out)["date"]) == NOW.date()
    assert len(relay.accepted) == 4
