"""The config as YAML: every mistake is named by key and line, and no type is guessed."""

from pathlib import Path

import pytest

from token_pipelines import shipped
from token_pipelines.config import Config, load
from token_pipelines.errors import ConfigError

SHIPPED = shipped.path("token_pipelines.yaml").read_text(encoding="utf-8")


def read(folder: Path, text: str) -> Config:
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    return load(folder / "config.yaml")


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    return str(caught.value).removeprefix(f"{folder}/")


def changed(old: str, new: str) -> str:
    assert SHIPPED.count(old) == 1
    return SHIPPED.replace(old, new)


def line_of(text: str, part: str) -> int:
    """The last line with this part."""
    return max(number for number, line in enumerate(text.splitlines(), start=1) if part in line)


# A key twice


def test_section_that_comes_twice_is_refused(tmp_path: Path) -> None:
    first = line_of(SHIPPED, "smtp:")
    text = f"{SHIPPED}smtp:\n  host: relay.example.org\n"
    second = line_of(text, "smtp:")
    assert refusal(tmp_path, text) == (
        f"config.yaml holds the key smtp twice, at lines {first} and {second}; keep one."
    )


def test_key_that_comes_twice_is_refused(tmp_path: Path) -> None:
    text = changed("  port: 2525\n", "  port: 2525\n  port: 25\n")
    line = line_of(text, "port: 2525")
    assert refusal(tmp_path, text) == (
        f"config.yaml holds the key smtp.port twice, at lines {line} and {line + 1}; keep one."
    )


def test_key_that_comes_twice_in_a_tier_is_refused(tmp_path: Path) -> None:
    text = changed("{name: week, before: 7d}", "{name: week, before: 7d, before: 8d}")
    line = line_of(text, "name: week")
    assert refusal(tmp_path, text) == f"config.yaml holds the key tiers.2.before twice, at line {line}; keep one."


def test_name_of_a_pipeline_that_comes_twice_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path, f"{SHIPPED}pipelines:\n  users: {{}}\n  teams: {{}}\n  users: {{}}\n")
    assert said.startswith("config.yaml holds the key pipelines.users twice, at lines ")


def test_key_that_comes_as_text_and_as_a_number_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, '1: a\n"1": b\n') == "config.yaml holds the key 1 twice, at lines 1 and 2; keep one."


def test_same_key_in_two_tables_is_no_key_twice(tmp_path: Path) -> None:
    text = changed("tiers:\n", "tiers: &tiers\n")
    assert [tier.name for tier in read(tmp_path, text).tiers] == ["month", "week", "day", "expired"]


# What is no value


@pytest.mark.parametrize("written", ["2026-02-30", "2026-13-01", "2026-02-30T00:00:00Z", "9999-12-31"])
def test_date_that_does_not_exist_is_named_by_key_and_line(tmp_path: Path, written: str) -> None:
    text = changed("start_date: 2026-01-01", f"start_date: {written}")
    line = line_of(text, "start_date")
    assert refusal(tmp_path, text).startswith(f"config.yaml line {line}: schedule.start_date: '{written}' ")


@pytest.mark.parametrize("written", ["2026-02-30", "0x_", "._", "1__", "9" * 5000, "2026-02-30 25:61:00"])
def test_no_plain_value_breaks_the_reader(tmp_path: Path, written: str) -> None:
    text = changed("before: 30d", f"before: {written}")
    line = line_of(text, "name: month")
    assert refusal(tmp_path, text).startswith(f"config.yaml line {line}: tiers.month.before: ")


@pytest.mark.parametrize("written", ["!!timestamp 2026-02-30", "!!int x", "!!float x"])
def test_tag_that_does_not_fit_is_one_sentence(tmp_path: Path, written: str) -> None:
    text = changed("start_date: 2026-01-01", f"start_date: {written}")
    assert refusal(tmp_path, text) == ("config.yaml holds a value that its tag (!!) does not allow; remove the tag.")


def test_value_of_the_environment_is_not_given_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_PIPELINES__SCHEDULE__START_DATE", "2026-02-30")
    assert refusal(tmp_path, SHIPPED).startswith("config.yaml: schedule.start_date: '2026-02-30' is a day that does ")


def test_ids_are_not_read_as_numbers(tmp_path: Path) -> None:
    """YAML reads 0123 as the octal 83, 1_0 as 10 and no as false: each would be another recipient."""
    text = changed("only_recipients: []", "only_recipients: [0123, 1_0, no, 42, 1:30]")
    assert read(tmp_path, text).delivery.only_recipients == ("0123", "1_0", "no", "42", "1:30")


@pytest.mark.parametrize("written", ["1.10", "true", "null"])
def test_id_that_yaml_cannot_give_back_is_refused(tmp_path: Path, written: str) -> None:
    text = changed("only_recipients: []", f"only_recipients: [{written}]")
    assert refusal(tmp_path, text).endswith(
        "delivery.only_recipients: must be ids; write one that is not a whole number in quotes."
    )


@pytest.mark.parametrize("written", ["[" * 3000, "a: &a [*a]", "a: &a {b: *a}"])
def test_text_that_has_no_end_is_one_sentence(tmp_path: Path, written: str) -> None:
    assert refusal(tmp_path, written).startswith("config.yaml ")
