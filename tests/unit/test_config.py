"""The config as an operator meets it: a file, the environment, and one sentence when something is wrong."""

import json
import shutil
from collections.abc import Callable
from datetime import date, time, timedelta
from pathlib import Path

import pytest
import yaml
from support.config import Load, sample

from token_pipelines import shipped
from token_pipelines.config import Config, load
from token_pipelines.errors import ConfigError
from token_pipelines.model import Mode
from token_pipelines.tiers import After, Before

# The file


def test_sample_loads_with_every_value_it_shows() -> None:
    config = load(shipped.path("token_pipelines.yaml"))
    assert config.source.url.get_secret_value() == "demo://registry"
    assert config.source.query == "crates_io"
    assert config.ledger.url.get_secret_value() == "demo://ledger"
    assert config.schedule.at == time(9)
    assert config.schedule.start_date == date(2026, 1, 1)
    assert config.tier_ladder == (
        After(name="expired", after=timedelta(), within=timedelta(days=3)),
        Before(name="day", before=timedelta(days=1)),
        Before(name="week", before=timedelta(days=7)),
        Before(name="month", before=timedelta(days=30)),
    )
    assert config.email.sender == "Example Registry <noreply@example.org>"
    assert config.smtp.host == "demo"
    assert config.smtp.rate == 50
    assert config.delivery.mode is Mode.LIVE
    assert config.delivery.max_notices == 100_000


def test_sample_shows_the_defaults_where_it_shows_a_default() -> None:
    config = load(shipped.path("token_pipelines.yaml"))
    for section in (config.delivery, config.schedule):
        for name, field in type(section).model_fields.items():
            if not field.is_required():
                assert getattr(section, name) == field.default, name


def test_optional_sections_may_be_missing(tmp_path: Path) -> None:
    data = sample()
    del data["smtp"], data["delivery"]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    config = load(path)
    assert config.smtp.port == 587
    assert config.smtp.security == "starttls"
    assert config.delivery.max_attempts == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"source: [", "is not valid YAML at line 1"),
        (b"a: 1\n b: 2\n", "is not valid YAML at line 2"),
        (b"\xff\xfe", "is in UTF-16; save it as UTF-8."),
        (b"", "must hold keys like source"),
        (b"- a\n", "must hold keys like source"),
    ],
)
def test_load_of_what_is_no_config_says_so(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path} {said}")


def test_load_of_a_missing_file_tells_the_cure(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist; name your config with --config"):
        load(tmp_path / "nowhere.yaml")


def test_load_of_a_folder_tells_the_cure(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read \(IsADirectoryError\)"):
        load(tmp_path)


def test_folder_of_a_relative_path_stays_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load_with: Load
) -> None:
    load_with()
    monkeypatch.chdir(tmp_path)
    config = load(Path("token_pipelines.yaml"))
    monkeypatch.chdir("/")
    assert config.folder == tmp_path
    assert config.path == tmp_path / "token_pipelines.yaml"


def test_config_cannot_be_changed(load_with: Load) -> None:
    config = load_with()
    with pytest.raises(ValueError, match="frozen"):
        config.smtp.port = 25


# Keys


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sorce": {}}, "sorce is not a key we know; did you mean source?"),
        ({"smtp__pasword": "x"}, "smtp.pasword is not a key we know; did you mean password?"),
        ({"email__form": "x"}, "email.form is not a key we know; did you mean from?"),
        (
            {"email__links__unsubscribed": "x"},
            "email.links.unsubscribed is not a key we know; did you mean unsubscribe?",
        ),
        ({"tiers": [{"name": "week", "befor": "7d"}]}, "tiers.week.befor is not a key we know; did you mean before?"),
        ({"zzz": 1}, "zzz is not a key we know; remove it, or check its spelling in docs/configuration.md."),
    ],
)
def test_unknown_key_is_refused_with_the_nearest_known(
    refusal: Callable[..., str], change: dict[str, object], said: str
) -> None:
    assert refusal(**change).endswith(f": {said}")


def test_missing_key_is_named(tmp_path: Path) -> None:
    data = sample()
    del data["email"]["links"]["manage"]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: email.links.manage is missing; add it (docs/configuration.md shows how)."


# The environment


@pytest.mark.parametrize(
    ("variable", "value", "read"),
    [
        ("SMTP__PORT", "25", lambda config: config.smtp.port == 25),
        ("SMTP__RATE", "600/m", lambda config: config.smtp.rate == 10),
        ("SCHEDULE__GRACE", "90m", lambda config: config.schedule.grace == timedelta(minutes=90)),
        ("SCHEDULE__AT", "17:30", lambda config: config.schedule.at == time(17, 30)),
        ("SCHEDULE__START_DATE", "2026-03-01", lambda config: config.schedule.start_date == date(2026, 3, 1)),
        ("EMAIL__FROM", "Ops <ops@example.org>", lambda config: config.email.sender == "Ops <ops@example.org>"),
        ("EMAIL__LINKS__MANAGE", "https://x.example", lambda config: config.email.links.manage == "https://x.example"),
        ("DELIVERY__MODE", "dry_run", lambda config: config.delivery.mode is Mode.DRY_RUN),
        ("DELIVERY__ONLY_RECIPIENTS", '["7", "8"]', lambda config: config.delivery.only_recipients == ("7", "8")),
        ("TIERS", '[{"name": "week", "before": "7d"}]', lambda config: [t.name for t in config.tiers] == ["week"]),
        ("DELIVERY", '{"max_attempts": 5}', lambda config: config.delivery.max_attempts == 5),
    ],
)
def test_environment_overrides_the_file(
    load_with: Load, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, read: Callable[[Config], bool]
) -> None:
    monkeypatch.setenv(f"TOKEN_PIPELINES__{variable}", value)
    config = load_with()
    assert read(config)
    assert config.source.query == "crates_io"


def test_environment_override_leaves_the_rest_of_its_section(load_with: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_PIPELINES__SMTP__PORT", "25")
    config = load_with(smtp__connections=9)
    assert (config.smtp.host, config.smtp.port, config.smtp.connections) == ("demo", 25, 9)


@pytest.mark.parametrize("password", ["hunter2", "12345", "null", "true", '{"a": 1}', "[1]", '"quoted"', "a__b", " s "])
def test_password_is_taken_from_the_environment_as_it_stands(
    load_with: Load, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    monkeypatch.setenv("TOKEN_PIPELINES__SMTP__PASSWORD", password)
    config = load_with(smtp__username="mailer", smtp__security="tls")
    assert config.smtp.password is not None
    assert config.smtp.password.get_secret_value() == password


def test_environment_that_is_no_json_is_refused(refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_PIPELINES__TIERS", "week")
    said = refusal()
    assert "an environment override is not valid" in said
    assert said.endswith("lists and tables are written as JSON.")


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("TOKEN_PIPELINES__SMTP__PASWORD", "smtp.pasword is not a key we know; did you mean password?"),
        (
            "TOKEN_PIPELINES__STMP__PASSWORD",
            "STMP__PASSWORD overrides no key we know; did you mean TOKEN_PIPELINES__SMTP?",
        ),
        (
            "TOKEN_PIPELINES_SMTP_PASSWORD",
            "TOKEN_PIPELINES_SMTP_PASSWORD overrides no key we know; did you mean TOKEN_PIPELINES__SMTP__PASSWORD?",
        ),
        (
            "token_pipelines_source__url",
            "token_pipelines_source__url overrides no key we know; did you mean TOKEN_PIPELINES__SOURCE__URL?",
        ),
        ("TOKEN_PIPELINES_XYZ_QQ", "TOKEN_PIPELINES_XYZ_QQ overrides no key we know; unset it, or check its spelling."),
        ("TOKEN_PIPELINESX", "TOKEN_PIPELINESX overrides no key we know; unset it, or check its spelling."),
        ("token_pipelines__zzz", "token_pipelines__zzz overrides no key we know; unset it, or check its spelling."),
    ],
)
def test_environment_that_overrides_no_key_is_refused_and_not_repeated(
    refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch, variable: str, said: str
) -> None:
    monkeypatch.setenv(variable, "hunter2")
    refused = refusal()
    assert refused.endswith(said)
    assert "hunter2" not in refused


def test_other_variables_of_ours_are_left_alone(load_with: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_PIPELINES_CONFIG", "elsewhere.yaml")
    assert load_with().smtp.port == 2525


# Days


def test_everything_can_be_given_by_the_environment_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("{}", encoding="utf-8")
    from_file = load(Path(shutil.copy(shipped.path("token_pipelines.yaml"), tmp_path)))
    for section, value in sample().items():
        monkeypatch.setenv(f"TOKEN_PIPELINES__{section.upper()}", json.dumps(value, default=str))
    assert load(path).model_dump() == from_file.model_dump()
