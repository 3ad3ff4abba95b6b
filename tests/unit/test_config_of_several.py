"""Several pipelines in one file: what they share, what is each one's own, and who is told what is wrong."""

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from token_pipelines import shipped
from token_pipelines.config import ENV_PREFIX, Config, load, load_all
from token_pipelines.errors import ConfigError

Write = Callable[..., Path]


def single() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(shipped.path("token_pipelines.yaml").read_text(encoding="utf-8"))
    return data


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a config of two pipelines; keywords are keys of the top level, or replace ``pipelines``."""

    def written(**changes: Any) -> Path:  # noqa: ANN401 -- YAML
        data = single()
        del data["source"], data["tiers"]
        data["pipelines"] = {
            "user_tokens": {"source": {"url": "postgresql:///registry", "query": "crates_io"}, "tiers": [WEEK]},
            "deploy_keys": {
                "source": {"url": "postgresql:///forge", "query": "keys.sql"},
                "tiers": [WEEK, {"name": "month", "before": "30d"}],
                "email": {"links": {"manage": "https://example.org/keys"}},
                "smtp": {"connections": 2},
            },
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(data | changes, sort_keys=False), encoding="utf-8")
        return path

    return written


WEEK = {"name": "week", "before": "7d"}


def refusal(path: Path, pipeline: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, pipeline) if pipeline else load_all(path)
    said = str(caught.value)
    assert said.startswith(str(path)) or "environment variable" in said
    return re.sub(rf"^{re.escape(str(path))}( line \d+)?: ", "", said)


def test_each_has_its_name_and_its_own_sections_over_the_shared_ones(write: Write) -> None:
    configs = load_all(write())
    users, keys = configs["user_tokens"], configs["deploy_keys"]
    assert [config.name for config in configs.values()] == ["user_tokens", "deploy_keys"]
    assert (users.source.query, keys.source.query) == ("crates_io", str(users.folder / "keys.sql"))
    assert [tier.name for tier in keys.tier_ladder] == ["week", "month"]
    assert users.email.links.manage == "https://example.org/settings/tokens"
    assert keys.email.links.manage == "https://example.org/keys"
    assert keys.email.links.renew == users.email.links.renew
    assert (users.smtp.connections, keys.smtp.connections) == (4, 2)
    assert users.smtp.port == keys.smtp.port == 2525
    assert users.path == keys.path


def test_one_is_loaded_by_its_name(write: Write) -> None:
    path = write()
    assert load(path, "deploy_keys").model_dump() == load_all(path)["deploy_keys"].model_dump()


def test_name_and_place_survive_a_copy(write: Write) -> None:
    config = load(write(), "deploy_keys")
    copy = config.model_copy(update={"smtp": config.smtp})
    assert (copy.name, copy.path, copy.option) == ("deploy_keys", config.path, " --pipeline deploy_keys")


def test_single_pipeline_has_no_name() -> None:
    path = shipped.path("token_pipelines.yaml")
    assert load(path).name is None
    assert {name: config.model_dump() for name, config in load_all(path).items()} == {None: load(path).model_dump()}


def test_list_replaces_the_shared_list(write: Write) -> None:
    tiers = [WEEK, {"name": "day", "before": "1d"}]
    path = write(tiers=tiers, delivery={"only_recipients": ["1", "2"]})
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    data["pipelines"]["user_tokens"] |= {"delivery": {"only_recipients": ["3"]}}
    del data["pipelines"]["deploy_keys"]["tiers"]
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    users, keys = load_all(path).values()
    assert [tier.name for tier in users.tier_ladder] == ["week"]
    assert [tier.name for tier in keys.tier_ladder] == ["day", "week"]
    assert (users.delivery.only_recipients, keys.delivery.only_recipients) == (("3",), ("1", "2"))


def test_pipeline_may_leave_everything_to_the_shared_sections(write: Write) -> None:
    path = write(source={"url": "postgresql:///a", "query": "crates_io"}, tiers=[WEEK], pipelines={"only": None})
    assert load(path, "only").source.query == "crates_io"


def test_shared_section_may_be_taken_away(write: Write) -> None:
    dkim = {"domain": "example.org", "selector": "a", "key_file": "key.pem"}
    path = write(dkim=dkim)
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    data["pipelines"]["user_tokens"]["dkim"] = None
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    users, keys = load_all(path).values()
    assert users.dkim is None
    assert keys.dkim is not None


def test_one_that_is_wrong_leaves_the_others_alone(write: Write) -> None:
    path = write()
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    data["pipelines"]["deploy_keys"]["tiers"] = []
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    assert load(path, "user_tokens").name == "user_tokens"
    assert refusal(path).startswith("pipelines.deploy_keys.tiers is not valid: ")


# The environment


@pytest.mark.parametrize(
    ("variable", "ports"),
    [
        ("SMTP__PORT", (26, 26)),
        ("PIPELINES__DEPLOY_KEYS__SMTP__PORT", (2525, 26)),
        ("pipelines__user_tokens__smtp__port", (26, 2525)),
    ],
)
def test_environment_overrides_the_shared_key_or_one_pipelines(
    write: Write, monkeypatch: pytest.MonkeyPatch, variable: str, ports: tuple[int, int]
) -> None:
    monkeypatch.setenv(ENV_PREFIX + variable, "26")
    assert tuple(config.smtp.port for config in load_all(write()).values()) == ports


def test_environment_overrides_a_key_at_its_own_place(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline's own key goes before the shared one, whether it stands in the file or in the environment."""
    monkeypatch.setenv(f"{ENV_PREFIX}SMTP__CONNECTIONS", "9")
    users, keys = load_all(write()).values()
    assert (users.smtp.connections, keys.smtp.connections) == (9, 2)
    monkeypatch.setenv(f"{ENV_PREFIX}PIPELINES__DEPLOY_KEYS__SMTP__CONNECTIONS", "7")
    users, keys = load_all(write()).values()
    assert (users.smtp.connections, keys.smtp.connections) == (9, 7)


def test_passwords_come_from_the_environment_at_both_levels(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://reader:hunter2@db.example.org/registry"
    monkeypatch.setenv(f"{ENV_PREFIX}SMTP__PASSWORD", "shared")
    monkeypatch.setenv(f"{ENV_PREFIX}PIPELINES__USER_TOKENS__SMTP__PASSWORD", "own")
    monkeypatch.setenv(f"{ENV_PREFIX}PIPELINES__USER_TOKENS__SOURCE__URL", url)
    path = write(smtp={"host": "relay.example.org", "username": "mailer"})
    users, keys = load_all(path).values()
    assert [_password(config) for config in (users, keys)] == ["own", "shared"]
    assert users.source.url.get_secret_value() == url
    assert keys.source.url.get_secret_value() == "postgresql:///forge"


def _password(config: Config) -> str:
    assert config.smtp.password is not None
    return config.smtp.password.get_secret_value()


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("PIPELINES__USER_TOKNES__SMTP__PORT", "did you mean TOKEN_PIPELINES__PIPELINES__USER_TOKENS?"),
        ("PIPELINES__USER_TOKENS__STMP__PORT", "did you mean TOKEN_PIPELINES__PIPELINES__USER_TOKENS__SMTP?"),
        ("PIPELINES__ZZZ__SMTP__PORT", "unset it, or check its spelling."),
        ("PIPELINES__USER_TOKENS", "did you mean TOKEN_PIPELINES__PIPELINES__USER_TOKENS?"),
        ("PIPELINES", "unset it, or check its spelling."),
        ("PIPELINE__USER_TOKENS__SMTP__PORT", "unset it, or check its spelling."),
    ],
)
def test_environment_of_no_pipeline_or_key_is_refused(
    write: Write, monkeypatch: pytest.MonkeyPatch, variable: str, said: str
) -> None:
    monkeypatch.setenv(ENV_PREFIX + variable, "hunter2")
    refused = refusal(write())
    assert refused == f"The environment variable {ENV_PREFIX}{variable} overrides no key we know; {said}"


def test_environment_of_a_pipeline_is_refused_where_the_file_holds_a_single_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(f"{ENV_PREFIX}PIPELINES__USER_TOKENS__SMTP__PORT", "26")
    with pytest.raises(ConfigError, match="overrides no key we know; unset it, or check its spelling"):
        load(shipped.path("token_pipelines.yaml"))


# What is wrong


def _of_keys(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 -- YAML
    source = {"url": "postgresql:///forge", "query": "keys.sql"}
    return {"pipelines": {"deploy_keys": {"source": source, "tiers": [WEEK]} | changes}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            _of_keys(tiers=[{"name": "week", "befor": "7d"}]),
            "pipelines.deploy_keys.tiers.week.befor is not a key we know; did you mean before?",
        ),
        (_of_keys(tiers=[WEEK, WEEK]), "pipelines.deploy_keys: tiers: two tiers have the same name; each needs its"),
        (_of_keys(sorce={}), "pipelines.deploy_keys.sorce is not a key we know; did you mean source?"),
        (_of_keys(source={}), "pipelines.deploy_keys.source.url is missing; add it (docs/configuration.md shows how)."),
        (_of_keys(smtp={"port": 0}), "pipelines.deploy_keys.smtp.port is not valid: Input should be greater than or"),
        (_of_keys(smtp={"timeout": "0s"}), "pipelines.deploy_keys.smtp.timeout: must be longer than 0s."),
        (_of_keys() | {"smtp": {"port": 0}}, "smtp.port is not valid: Input should be greater than or equal to 1."),
        (_of_keys() | {"sorce": {}}, "sorce is not a key we know; did you mean source?"),
        (_of_keys() | {"email": {"from": "a@example.org"}}, "pipelines.deploy_keys.email.service is missing; add it"),
        (
            _of_keys(smtp={"password": "hunter2"}),
            (
                "pipelines.deploy_keys.smtp.password does not belong in the file; set "
                f"{ENV_PREFIX}PIPELINES__DEPLOY_KEYS__SMTP__PASSWORD in the environment."
            ),
        ),
        (
            _of_keys(source={"url": "postgresql://a:hunter2@b/c", "query": "keys.sql"}),
            (
                "pipelines.deploy_keys.source.url holds a password, which does not belong in the file; set "
                f"{ENV_PREFIX}PIPELINES__DEPLOY_KEYS__SOURCE__URL in the environment."
            ),
        ),
        ({"pipelines": {}}, "pipelines must hold one table of keys for each name"),
        ({"pipelines": None}, "pipelines must hold one table of keys for each name"),
        ({"pipelines": [1]}, "pipelines must hold one table of keys for each name"),
        ({"pipelines": {"a": [1]}}, "pipelines.a must hold keys like source and tiers."),
    ],
)
def test_fault_is_named_where_it_was_written(write: Write, change: dict[str, Any], said: str) -> None:
    refused = refusal(write(**change))
    assert refused.startswith(said)
    assert "hunter2" not in refused


@pytest.mark.parametrize(
    "name",
    ["", "User", "7days", "user-tokens", "user tokens", "user__tokens", "user_", "_user", "ü", "a\n", "a" * 32, 7],
)
def test_name_that_cannot_be_used_everywhere_is_refused(write: Write, name: object) -> None:
    said = refusal(write(pipelines={name: {}}))
    assert said.startswith(f"pipelines: name {name!r} must be lower case letters, digits and single _ between them")


def test_longest_name_loads(write: Write) -> None:
    name = "a" * 31
    own = {"source": {"url": "postgresql:///a", "query": "crates_io"}, "tiers": [WEEK]}
    assert load(write(pipelines={name: own}), name).name == name


def test_misspelt_pipelines_are_suggested(write: Write) -> None:
    path = write()
    text = path.read_text(encoding="utf-8").replace("pipelines:\n", "pipelnes:\n")
    path.write_text(text, encoding="utf-8")
    assert refusal(path) == "pipelnes is not a key we know; did you mean pipelines?"


def test_choice_is_needed_and_lists_the_names(write: Write) -> None:
    path = write()
    names = "user_tokens, deploy_keys"
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"{path} holds several pipelines; choose one with --pipeline: {names}."
    with pytest.raises(ConfigError) as caught:
        load(path, "certificates")
    assert str(caught.value) == f"{path} holds no pipeline certificates; choose one with --pipeline: {names}."


def test_choice_is_refused_of_a_single_one() -> None:
    path = shipped.path("token_pipelines.yaml")
    with pytest.raises(ConfigError) as caught:
        load(path, "user_tokens")
    said = f"{path} holds a single pipeline, which has no name; leave out --pipeline user_tokens."
    assert str(caught.value) == said


def test_shares_reach_a_pipeline(write: Write) -> None:
    soon = {"name": "soon", "remaining": "10%", "at_most": "60d"}
    assert load(write(**_of_keys(tiers=[soon])), "deploy_keys").tier_ladder[0].longest_lead == timedelta(days=60)
