"""Instants and days at the edges of the calendar: each is read, or refused with one sentence."""

from datetime import UTC, date, datetime

import click
import pytest

from token_pipelines.cli.main import cli
from token_pipelines.instants import parse_day, parse_instant

BEYOND = (
    "9999-12-31T23:59:59-05:00",
    "9999-12-31T23:59:59Z",
    "9000-01-01T00:00:00Z",
    "1969-12-31T23:59:59Z",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+05:00",
)


@pytest.mark.parametrize("written", BEYOND)
@pytest.mark.parametrize("option", [("mark-notified", "--before"), ("run", "--now")])
def test_instant_beyond_the_calendar_is_refused_by_each_option(option: tuple[str, str], written: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        cli.main([*option, written], standalone_mode=False)
    assert caught.value.message == (
        f"'{written}' lies outside the years 1970 to 8999; write it like 2026-11-20T09:00:00Z."
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("8999-12-31T23:59:59.999999Z", datetime(8999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        ("9000-01-01T01:00:00+02:00", datetime(8999, 12, 31, 23, tzinfo=UTC)),
    ],
)
def test_instant_at_the_edge_is_read(written: str, meant: datetime) -> None:
    assert parse_instant(written) == meant


@pytest.mark.parametrize(("command", "option"), [("run", "--date"), ("history", "--date")])
@pytest.mark.parametrize("written", ["9999-12-31", "0001-01-01"])
def test_day_beyond_the_calendar_is_refused_by_each_option(command: str, option: str, written: str) -> None:
    with pytest.raises(click.BadParameter) as caught:
        cli.main([command, option, written], standalone_mode=False)
    assert caught.value.message == f"'{written}' lies outside the years 1970 to 8999; write it like 2026-11-20."


def test_day_that_does_not_exist_is_said_to_be_none() -> None:
    with pytest.raises(ValueError, match=r"^'2026-02-30' is a day that does not exist; write it like 2026-01-31$"):
        parse_day("2026-02-30", like="2026-01-31")
    assert parse_day("2028-02-29", like="2026-01-31") == date(2028, 2, 29)
