"""The config as an operator meets it: a file, the environment, and one sentence when something is wrong."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from token_pipelines import shipped
from token_pipelines.config import ENV_PREFIX, Config, Schedule, TierConfig, load
from token_pipelines.errors import ConfigError
from token_pipelines.model import Mode, Tier

Load = Callable[..., Config]


@pytest.fixture(autouse=True)
def no_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide what the developer's own shell overrides."""
    for name in [name for name in os.environ if name.upper().startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)


def sample(**changes: object) -> dict[str, Any]:
    """The shipped config as data; ``smtp__port=25`` changes a nested key."""
    data: dict[str, Any] = yaml.safe_load(shipped.path("token_pipelines.yaml").read_text(encoding="utf-8"))
    for key, value in changes.items():
        *sections, last = key.split("__")
        place = data
        for section in sections:
            place = place[section]
        place[last] = value
    return data


@pytest.fixture
def load_with(tmp_path: Path) -> Load:
    """Load the shipped config with changes."""

    def load_changed(**changes: object) -> Config:
        path = tmp_path / "token_pipelines.yaml"
        path.write_text(yaml.safe_dump(sample(**changes)), encoding="utf-8")
        return load(path)

    return load_changed


@pytest.fixture
def refusal(load_with: Load) -> Callable[..., str]:
    """Load the shipped config with changes that are wrong, and give what the operator reads."""

    def refuse(**changes: object) -> str:
        with pytest.raises(ConfigError) as caught:
            load_with(**changes)
        return str(caught.value)

    return refuse


# The file


def test_sample_loads_with_every_value_it_shows() -> None:
    config = load(shipped.path("token_pipelines.yaml"))
    assert config.source.url.get_secret_value() == "demo://registry"
    assert config.source.query == "crates_io"
    assert config.ledger.url.get_secret_value() == "demo://ledger"
    assert config.schedule.at == time(9)
    assert config.schedule.start_date == date(2026, 1, 1)
    assert config.tier_ladder == (
        Tier(name="expired", after=timedelta(), within=timedelta(days=3)),
        Tier(name="day", before=timedelta(days=1)),
        Tier(name="week", before=timedelta(days=7)),
        Tier(name="month", before=timedelta(days=30)),
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
        (b"schedule: {start_date: 2026-02-30}", "is not valid YAML; check the indentation, the quotes and the dates"),
        (b"\xff\xfe", "cannot be read (UnicodeDecodeError)"),
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
        ({"tiers": [{"name": "week", "befor": "7d"}]}, "tiers.0.befor is not a key we know; did you mean before?"),
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


# Secrets


@pytest.mark.parametrize("password", ["hunter2", "", 12345])
def test_password_in_the_file_is_refused_and_not_repeated(refusal: Callable[..., str], password: object) -> None:
    said = refusal(smtp__password=password)
    assert said.endswith(
        "smtp.password does not belong in the file; set TOKEN_PIPELINES__SMTP__PASSWORD in the environment."
    )
    assert "hunter2" not in said
    assert "12345" not in said


@pytest.mark.parametrize("section", ["source", "ledger"])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://reader:hunter2@db.example.org/registry",
        "postgresql://reader:hun/ter2@db.example.org/registry",  # urlsplit ends the host at the slash
        "postgresql://:hunter2@db.example.org/registry",
        "postgresql://[hunter2:hunter2@db.example.org/registry",
        "postgresql://db.example.org/registry?user=reader&password=hunter2",
        "postgresql://db.example.org/registry?sslpassword=hunter2",
        "mysql+pymysql://db.example.org/registry?passwd=hunter2",
    ],
)
def test_password_in_a_url_in_the_file_is_refused_and_not_repeated(
    refusal: Callable[..., str], section: str, url: str
) -> None:
    said = refusal(**{f"{section}__url": url})
    assert said.endswith(
        f"{section}.url holds a password, which does not belong in the file; "
        f"set TOKEN_PIPELINES__{section.upper()}__URL in the environment."
    )
    assert "hunter2" not in said
    assert "ter2" not in said


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://reader@db.example.org:5432/registry",
        "postgresql://db.example.org:5432/registry?passfile=/run/secrets/pgpass",
        "postgresql://reader@[::1]:5432/registry",
        "postgresql:///registry?host=/run/postgresql",
        "sqlite:////var/lib/registry.db",
    ],
)
def test_url_without_a_password_may_stand_in_the_file(load_with: Load, url: str) -> None:
    assert load_with(source__url=url).source.url.get_secret_value() == url


def test_repr_never_shows_a_password_or_a_url(load_with: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_PIPELINES__SOURCE__URL", "postgresql://reader:hunter2@db.example.org/registry")
    monkeypatch.setenv("TOKEN_PIPELINES__LEDGER__URL", "postgresql://writer:hunter2@db.example.org/ops")
    monkeypatch.setenv("TOKEN_PIPELINES__SMTP__PASSWORD", "hunter2")
    config = load_with(smtp__username="mailer", smtp__security="starttls")
    for shown in (repr(config), str(config), str(config.model_dump()), config.model_dump_json(), repr(config.smtp)):
        assert "hunter2" not in shown
        assert "db.example.org" not in shown
    assert config.smtp.password is not None
    assert config.smtp.password.get_secret_value() == "hunter2"
    assert config.source.url.get_secret_value() == "postgresql://reader:hunter2@db.example.org/registry"


def test_fault_elsewhere_does_not_show_a_password(refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of a whole section must not print the section."""
    monkeypatch.setenv("TOKEN_PIPELINES__SMTP__PASSWORD", "hunter2")
    said = refusal()
    assert said.endswith(
        "smtp: username needs a password in the environment (TOKEN_PIPELINES__SMTP__PASSWORD), "
        "and a password needs a username."
    )
    assert "hunter2" not in said


def test_username_without_a_password_is_refused(refusal: Callable[..., str]) -> None:
    assert "username needs a password in the environment" in refusal(smtp__username="mailer")


@pytest.mark.parametrize(("host", "allowed"), [("localhost", True), ("127.0.0.1", True), ("relay.example.org", False)])
def test_password_crosses_the_network_encrypted_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, *, allowed: bool
) -> None:
    monkeypatch.setenv("TOKEN_PIPELINES__SMTP__PASSWORD", "hunter2")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(sample(smtp__username="mailer", smtp__security="none", smtp__host=host)))
    if allowed:
        assert load(path).smtp.host == host
    else:
        with pytest.raises(ConfigError, match="set security to starttls or tls"):
            load(path)


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


# Values


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("30d", timedelta(days=30)),
        ("1d12h", timedelta(days=1, hours=12)),
        ("1 d 12 h", timedelta(days=1, hours=12)),
        ("2w", timedelta(weeks=2)),
        ("90m", timedelta(minutes=90)),
        ("15s", timedelta(seconds=15)),
        ("0s", timedelta()),
        ("36525d", timedelta(days=36_525)),
    ],
)
def test_duration_is_read(load_with: Load, written: str, meant: timedelta) -> None:
    assert load_with(schedule__grace=written).schedule.grace == meant


@pytest.mark.parametrize("written", ["", "7", "d", "-7d", "7 days", "7x", "1.5h", "P7D", 30, 1.5, True, ["7d"]])
def test_duration_that_cannot_be_read_is_refused(refusal: Callable[..., str], written: object) -> None:
    said = refusal(schedule__grace=written)
    assert said.endswith(f"schedule.grace: {written!r} is not a duration; write it like 30d, 2h or 1d12h.")


@pytest.mark.parametrize("written", ["36526d", "99999999999d", "9" * 30 + "w"])
def test_duration_beyond_the_calendar_is_refused(refusal: Callable[..., str], written: str) -> None:
    assert "is longer than a century" in refusal(schedule__grace=written)


@pytest.mark.parametrize(
    "key", ["smtp__timeout", "source__deadline", "source__statement_timeout", "source__lock_timeout"]
)
def test_timeout_of_no_time_is_refused(refusal: Callable[..., str], key: str) -> None:
    """To the database and to the socket, 0 means no limit at all."""
    assert refusal(**{key: "0s"}).endswith(f"{key.replace('__', '.')}: must be longer than 0s.")


@pytest.mark.parametrize("written", [30, 30.0, "30", "30s"])
def test_timeout_may_be_a_bare_number_of_seconds(load_with: Load, written: object) -> None:
    assert load_with(smtp__timeout=written).smtp.timeout == timedelta(seconds=30)


@pytest.mark.parametrize("written", [True, -1, "-1", "soon", float("nan"), float("inf")])
def test_timeout_that_cannot_be_read_is_refused(refusal: Callable[..., str], written: object) -> None:
    assert refusal(smtp__timeout=written).endswith(
        f"smtp.timeout: {written!r} is not a duration; write it like 30d, 2h or 1d12h."
    )


@pytest.mark.parametrize(("written", "meant"), [("50/s", 50), ("600/m", 10), ("0.5 / s", 0.5), (20, 20), (None, None)])
def test_rate_is_read_as_messages_a_second(load_with: Load, written: object, meant: float | None) -> None:
    assert load_with(smtp__rate=written).smtp.rate == meant


@pytest.mark.parametrize("written", ["fast", "50", "0/s", "-1/s", "50/d", 0, -1, float("inf"), float("nan")])
def test_rate_that_cannot_be_kept_is_refused(refusal: Callable[..., str], written: object) -> None:
    assert ": smtp.rate" in refusal(smtp__rate=written)


@pytest.mark.parametrize("written", ["9:00", "24:00", "09:60", "09:00:30", "nine", "", 540, time(9)])
def test_time_of_day_that_cannot_be_read_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match='is not a time of day; write it in quotes, like "09:00"'):
        Schedule.model_validate({"at": written, "start_date": date(2026, 1, 1)})


def test_time_of_day_without_its_quotes_is_refused(tmp_path: Path) -> None:
    """YAML reads 10:30 as 630, in base 60."""
    path = tmp_path / "config.yaml"
    text = shipped.path("token_pipelines.yaml").read_text(encoding="utf-8")
    assert '  at: "09:00"' in text
    path.write_text(text.replace('"09:00"', "10:30"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r'schedule\.at: 630 is not a time of day; write it in quotes, like "09:00"'):
        load(path)


@pytest.mark.parametrize("written", [20260101, 2026, "yesterday", datetime(2026, 1, 1, 10, tzinfo=UTC)])
def test_start_date_that_is_no_date_is_refused(refusal: Callable[..., str], written: object) -> None:
    assert ": schedule.start_date" in refusal(schedule__start_date=written)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "Europe", "../etc/passwd", "europe/berlin "])
def test_zone_that_does_not_exist_is_refused(refusal: Callable[..., str], zone: str) -> None:
    for key in ("schedule.timezone", "source.timezone"):
        assert refusal(**{key.replace(".", "__"): zone}).endswith(
            f"{key}: {zone!r} is not a time zone; write it like UTC or Europe/Berlin."
        )


@pytest.mark.parametrize(
    "key", ["email__from", "email__service", "email__reply_to", "email__links__manage", "smtp__host"]
)
def test_line_break_in_what_becomes_a_header_is_refused(refusal: Callable[..., str], key: str) -> None:
    for character in "\r\n\x00\x7f":
        said = refusal(**{key: f"https://a{character}Bcc: all@example.org"})
        assert "must not contain line breaks or control characters" in said


@pytest.mark.parametrize(
    "link", ["ftp://example.org", "example.org", "javascript:alert(1)", "https://x/{name}", "https://x/{}"]
)
def test_link_that_cannot_be_filled_in_is_refused(refusal: Callable[..., str], link: str) -> None:
    said = refusal(email__links__renew=link)
    assert "must start with https://" in said or "may hold {token_id} and {recipient_id} and no other field" in said


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schedule__lookback_days", 0),
        ("schedule__lookback_days", 61),
        ("smtp__port", 0),
        ("smtp__port", 65536),
        ("smtp__security", "ssl"),
        ("smtp__connections", 0),
        ("smtp__connections", 65),
        ("smtp__recycle_after", 0),
        ("delivery__mode", "test"),
        ("delivery__rollout_percent", -1),
        ("delivery__rollout_percent", 101),
        ("delivery__rollout_percent", float("nan")),
        ("delivery__on_unknown", "ignore"),
        ("delivery__max_attempts", 0),
        ("delivery__max_notices", 0),
        ("delivery__only_recipients", 7),
        ("delivery__retry_pauses", ["soon"]),
        ("tiers", []),
        ("source", None),
    ],
)
def test_value_out_of_bounds_is_refused_by_the_name_of_its_key(
    refusal: Callable[..., str], key: str, value: object
) -> None:
    assert f": {key.replace('__', '.')}" in refusal(**{key: value})


def test_recipients_may_be_written_as_numbers(load_with: Load) -> None:
    assert load_with(delivery__only_recipients=[7, "x"]).delivery.only_recipients == ("7", "x")


@pytest.mark.parametrize(
    ("mode", "to"), [("redirect", None), ("live", "ops@example.org"), ("dry_run", "ops@example.org")]
)
def test_redirect_to_belongs_to_mode_redirect(refusal: Callable[..., str], mode: str, to: str | None) -> None:
    said = refusal(delivery__mode=mode, delivery__redirect_to=to)
    assert said.endswith("delivery: redirect_to is needed by mode: redirect, and only there.")


def test_redirect_loads(load_with: Load) -> None:
    config = load_with(delivery__mode="redirect", delivery__redirect_to="ops@example.org")
    assert config.delivery.redirect_to == "ops@example.org"


@pytest.mark.parametrize(
    "to", ["ops example.org", "ops", "", "Ops <ops@example.org>", "a@example.org, b@example.org", "ops@💩.example"]
)
def test_redirect_to_no_address(refusal: Callable[..., str], to: str) -> None:
    """Told at once: else every notice would be read, claimed and put off."""
    said = refusal(delivery__mode="redirect", delivery__redirect_to=to)
    assert said.endswith(": delivery.redirect_to: must be one plain address, like ops@example.org.")


# Tiers


@pytest.mark.parametrize(
    ("tier", "said"),
    [
        ({"name": "week"}, "tier week needs either before (like 7d) or after (like 0d)"),
        ({"name": "week", "before": "7d", "after": "0d", "within": "3d"}, "tier week needs either before"),
        ({"name": "week", "before": "23h"}, "tier week: before must be at least 1d, and goes without within"),
        ({"name": "week", "before": "7d", "within": "1d"}, "tier week: before must be at least 1d"),
        ({"name": "gone", "after": "0d"}, "tier gone: after needs within, at least 1d"),
        ({"name": "gone", "after": "0d", "within": "23h"}, "tier gone: after needs within, at least 1d"),
        ({"name": "soon", "remaining": "10%"}, "tier soon: remaining needs at_most (like 60d), at least 1d"),
        ({"name": "soon", "remaining": "10%", "at_most": "23h"}, "tier soon: remaining needs at_most (like 60d), at l"),
        (
            {"name": "soon", "remaining": "10%", "at_most": "60d", "within": "3d"},
            "tier soon: remaining needs at_most (like 60d), at least 1d, and goes without within",
        ),
        ({"name": "soon", "remaining": "10%", "at_most": "60d", "before": "7d"}, "tier soon needs either before"),
        ({"name": "week", "before": "7d", "at_most": "60d"}, "tier week: at_most goes with remaining (like 10%)"),
        ({"name": "soon", "at_most": "60d"}, "tier soon needs either before (like 7d) or after (like 0d) or remaining"),
        ({"name": "7_days", "before": "7d"}, "name '7_days' must be lower case letters, digits and _"),
        ({"name": "Week", "before": "7d"}, "name 'Week' must be lower case letters"),
        ({"name": "a/b", "before": "7d"}, "name 'a/b' must be lower case letters"),
        ({"name": "week\n", "before": "7d"}, r"name 'week\n' must be lower case letters"),
        ({"name": "w" * 32, "before": "7d"}, "must be lower case letters"),
    ],
)
def test_tier_that_makes_no_sense_is_refused(refusal: Callable[..., str], tier: dict[str, object], said: str) -> None:
    refused = refusal(tiers=[tier])
    assert ": tiers.0: " in refused
    assert said in refused


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("10%", Fraction(1, 10)),
        ("12.5 %", Fraction(1, 8)),
        ("0.01%", Fraction(1, 10_000)),
        ("99.99%", Fraction(9999, 10_000)),
    ],
)
def test_share_of_a_lifetime_is_read_exactly(load_with: Load, written: str, meant: Fraction) -> None:
    (tier,) = load_with(tiers=[{"name": "soon", "remaining": written, "at_most": "60d"}]).tier_ladder
    assert tier == Tier(name="soon", remaining=meant, at_most=timedelta(days=60))


@pytest.mark.parametrize(
    "written", ["100%", "0%", "0.00%", "0.001%", "-1%", "10", 10, 0.1, True, "ten", "10%%", "1e1%"]
)
def test_share_of_a_lifetime_that_cannot_be_is_refused(refusal: Callable[..., str], written: object) -> None:
    said = refusal(tiers=[{"name": "soon", "remaining": written, "at_most": "60d"}])
    assert said.endswith(
        f"tiers.0.remaining: {written!r} is not a share of a lifetime; write it like 10% or 12.5%, "
        "more than 0% and less than 100%."
    )


@pytest.mark.parametrize(
    "tier",
    [
        {"before": "1d"},
        {"remaining": "1%", "at_most": "1d"},
        {"after": "0d", "within": "1d"},
        {"after": "30d", "within": "1d"},
    ],
)
def test_tier_at_its_bounds_loads(tier: dict[str, object]) -> None:
    assert TierConfig.model_validate({"name": "t", **tier}).name == "t"


def test_two_tiers_of_one_name_are_refused(refusal: Callable[..., str]) -> None:
    said = refusal(tiers=[{"name": "week", "before": "7d"}, {"name": "week", "before": "8d"}])
    assert said.endswith(": tiers: two tiers have the same name; each needs its own.")


def test_two_tiers_at_one_instant_are_refused(refusal: Callable[..., str]) -> None:
    said = refusal(tiers=[{"name": "week", "before": "7d"}, {"name": "seven", "before": "1w"}])
    assert said.endswith(": tiers: two tiers begin at the same instant; drop one of them.")


def test_two_shares_of_one_lead_are_refused_when_they_are_the_same(refusal: Callable[..., str]) -> None:
    soon = {"name": "soon", "remaining": "10%", "at_most": "60d"}
    said = refusal(tiers=[soon, {"name": "again", "remaining": "10.0%", "at_most": "60d"}])
    assert said.endswith(": tiers: two tiers begin at the same instant; drop one of them.")


def test_ladder_of_one_lead_puts_the_smaller_share_first(load_with: Load) -> None:
    tiers = [
        {"name": "fixed", "before": "60d"},
        {"name": "fifth", "remaining": "20%", "at_most": "60d"},
        {"name": "tenth", "remaining": "10%", "at_most": "60d"},
    ]
    assert [tier.name for tier in load_with(tiers=tiers).tier_ladder] == ["tenth", "fifth", "fixed"]


@given(st.permutations(["before: 30d", "before: 7d", "before: 1d", "after: 0d", "after: 2d"]))
def test_ladder_is_most_urgent_first_in_whatever_order_it_is_written(steps: list[str]) -> None:
    tiers = []
    for number, step in enumerate(steps):
        side, length = step.split(": ")
        tiers.append({"name": f"t{number}", side: length} | ({"within": "3d"} if side == "after" else {}))
    config = Config(**sample(tiers=tiers))
    assert [tier.lead for tier in config.tier_ladder] == [timedelta(days=days) for days in (-2, 0, 1, 7, 30)]


# Days


def schedule(at: str = "09:00", timezone: str = "UTC", grace: str = "2h") -> Schedule:
    return Schedule.model_validate({"at": at, "timezone": timezone, "grace": grace, "start_date": "2026-01-01"})


@pytest.mark.parametrize(
    ("at", "timezone", "day", "instant"),
    [
        ("09:00", "UTC", date(2026, 11, 20), datetime(2026, 11, 20, 9, tzinfo=UTC)),
        ("09:00", "Europe/Berlin", date(2026, 7, 1), datetime(2026, 7, 1, 7, tzinfo=UTC)),
        ("00:00", "Pacific/Kiritimati", date(2026, 7, 1), datetime(2026, 6, 30, 10, tzinfo=UTC)),
        # 02:30 does not exist: the clock goes from 02:00 to 03:00. The later instant is 03:30 summer time.
        ("02:30", "Europe/Berlin", date(2026, 3, 29), datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),
        ("01:59", "Europe/Berlin", date(2026, 3, 29), datetime(2026, 3, 29, 0, 59, tzinfo=UTC)),
        ("03:00", "Europe/Berlin", date(2026, 3, 29), datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),
        # 02:30 comes twice: the clock goes from 03:00 back to 02:00. The earlier instant is in summer time.
        ("02:30", "Europe/Berlin", date(2026, 10, 25), datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        ("03:00", "Europe/Berlin", date(2026, 10, 25), datetime(2026, 10, 25, 2, 0, tzinfo=UTC)),
    ],
)
def test_run_at(at: str, timezone: str, day: date, instant: datetime) -> None:
    found = schedule(at, timezone).run_at(day)
    assert found == instant
    assert found.tzinfo is UTC


@given(st.dates(date(2026, 1, 1), date(2037, 12, 30)), st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Apia"]))
def test_run_at_is_later_each_day(day: date, timezone: str) -> None:
    plan = schedule("02:30", timezone)
    gap = plan.run_at(day + timedelta(days=1)) - plan.run_at(day)
    assert timedelta(hours=23) <= gap <= timedelta(hours=25)


@pytest.mark.parametrize(
    ("now", "day"),
    [
        (datetime(2026, 6, 30, 21, 59, 59, tzinfo=UTC), date(2026, 6, 30)),
        (datetime(2026, 6, 30, 22, tzinfo=UTC), date(2026, 7, 1)),
    ],
)
def test_today_changes_at_midnight_of_the_zone(now: datetime, day: date) -> None:
    assert schedule(timezone="Europe/Berlin").today(now) == day


@pytest.mark.parametrize(
    ("day", "now", "reach"),
    [
        # On time: until the next run, and as late as that one may be.
        (date(2026, 11, 20), datetime(2026, 11, 20, 9, tzinfo=UTC), datetime(2026, 11, 21, 11, tzinfo=UTC)),
        # A missed day looks as far as today does.
        (date(2026, 11, 10), datetime(2026, 11, 20, 15, tzinfo=UTC), datetime(2026, 11, 21, 11, tzinfo=UTC)),
        # A day started before its date, in a rehearsal.
        (date(2026, 11, 22), datetime(2026, 11, 20, 9, tzinfo=UTC), datetime(2026, 11, 23, 11, tzinfo=UTC)),
    ],
)
def test_reach(day: date, now: datetime, reach: datetime) -> None:
    assert schedule().reach(day, now) == reach


def test_reach_over_a_change_of_the_clock() -> None:
    now = datetime(2026, 10, 24, 0, 30, tzinfo=UTC)
    plan = schedule("02:30", "Europe/Berlin", grace="30m")
    assert plan.reach(date(2026, 10, 24), now) == datetime(2026, 10, 25, 1, 0, tzinfo=UTC)


def test_everything_can_be_given_by_the_environment_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("{}", encoding="utf-8")
    from_file = load(Path(shutil.copy(shipped.path("token_pipelines.yaml"), tmp_path)))
    for section, value in sample().items():
        monkeypatch.setenv(f"TOKEN_PIPELINES__{section.upper()}", json.dumps(value, default=str))
    assert load(path).model_dump() == from_file.model_dump()


# DKIM


def dkim(**changes: object) -> dict[str, object]:
    return {"domain": "example.org", "selector": "mail2026", "key_file": "dkim.pem", **changes}


def test_dkim_is_the_relays_business_by_default(load_with: Load) -> None:
    assert load_with().dkim is None


def test_dkim_key_from_the_environment(load_with: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{ENV_PREFIX}DKIM__PRIVATE_KEY", "a key")
    found = load_with(dkim={"domain": "example.org", "selector": "mail2026"}).dkim
    assert found is not None
    assert found.private_key is not None
    assert found.private_key.get_secret_value() == "a key"
    assert "a key" not in repr(found)


@pytest.mark.parametrize("key", ["private_key", "ed25519_private_key"])
def test_dkim_key_in_the_file_is_refused_and_not_repeated(refusal: Callable[..., str], key: str) -> None:
    said = refusal(dkim=dkim(**{key: "a key"}))
    assert said.endswith(
        f"dkim.{key} does not belong in the file; set TOKEN_PIPELINES__DKIM__{key.upper()} in the environment."
    )


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"key_file": None}, "dkim: selector goes with one key: key_file, or private_key in the environment"),
        ({"ed25519_selector": "ed"}, "dkim: ed25519_selector goes with one key: ed25519_key_file, or ed25519_private"),
        ({"ed25519_key_file": "ed.pem"}, "dkim: ed25519_selector goes with one key: ed25519_key_file, or ed25519_priv"),
        ({"domain": "exämple.org"}, "dkim: domain and selectors are names in the DNS, in ASCII"),
        ({"domain": "example.org; s=x"}, "dkim: domain and selectors are names in the DNS, in ASCII"),
        ({"selector": ""}, "dkim: domain and selectors are names in the DNS, in ASCII"),
        ({"selector": "a..b"}, "dkim: domain and selectors are names in the DNS, in ASCII"),
        (
            {"ed25519_selector": "mail2026", "ed25519_key_file": "ed.pem"},
            "dkim: domain and selectors are names in the DNS, in ASCII, like example.org and mail2026; no two the same",
        ),
    ],
)
def test_dkim_that_cannot_be_is_refused(refusal: Callable[..., str], changes: dict[str, object], fault: str) -> None:
    assert fault in refusal(dkim=dkim(**changes))
