"""Values of the config: durations, rates, times, zones, links, bounds."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest
from support.config import Load

from token_pipelines import shipped
from token_pipelines.config import Schedule, load


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


def test_time_of_day_needs_no_quotes(tmp_path: Path) -> None:
    """Other readers of YAML take 10:30 for 630, in base 60."""
    path = tmp_path / "config.yaml"
    text = shipped.path("token_pipelines.yaml").read_text(encoding="utf-8")
    assert '  at: "09:00"' in text
    path.write_text(text.replace('"09:00"', "10:30"), encoding="utf-8")
    assert load(path).schedule.at == time(10, 30)


@pytest.mark.parametrize("written", [20260101, 2026, "yesterday", datetime(2026, 1, 1, 10, tzinfo=UTC)])
def test_start_date_that_is_no_date_is_refused(refusal: Callable[..., str], written: object) -> None:
    assert ": schedule.start_date" in refusal(schedule__start_date=written)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "Europe", "../etc/passwd", "europe/berlin "])
def test_zone_that_does_not_exist_is_refused(refusal: Callable[..., str], zone: str) -> None:
    said = "what is written" if "passw" in zone else repr(zone)  # it may hold a password
    for key in ("schedule.timezone", "source.timezone"):
        assert refusal(**{key.replace(".", "__"): zone}).endswith(
            f"{key}: {said} is not a time zone; write it like UTC or Europe/Berlin."
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
