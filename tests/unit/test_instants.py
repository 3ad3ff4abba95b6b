"""Instants and days at the edges of the calendar: each is read, or refused with one sentence."""

from datetime import UTC, date, datetime

import click
import pyarrow as pa
import pytest

from token_pipelines.cli.main import cli
from token_pipelines.errors import SourceError
from token_pipelines.instants import parse_day, parse_instant
from token_pipelines.source.databases import postgres, sqlite
from token_pipelines.source.dialect import Dialect
from token_pipelines.source.instants import to_utc

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


@pytest.mark.parametrize(
    ("column", "zone", "dialect"),
    [
        (pa.array(["9999-12-31T23:59:59-05:00"]), None, sqlite.SQLITE.dialect),
        (pa.array(["0001-01-01 00:00:00+05:00"]), None, sqlite.SQLITE.dialect),
        (pa.array(["0001-01-01 00:00:00"]), "Asia/Tokyo", sqlite.SQLITE.dialect),
        (pa.array([datetime(1, 1, 1)], pa.timestamp("us")), "Asia/Tokyo", postgres.POSTGRES.dialect),  # noqa: DTZ001
        (pa.array([datetime(9999, 12, 31, 23)], pa.timestamp("us")), "America/Lima", postgres.POSTGRES.dialect),  # noqa: DTZ001
    ],
)
def test_row_whose_zone_leads_out_of_the_calendar_is_refused(
    column: pa.Array, zone: str | None, dialect: Dialect
) -> None:
    rows = pa.table({"token_id": ["7"], "recipient_id": ["9"], "created_at": column})
    with pytest.raises(SourceError, match="an instant before the year 1 or after 9999 as created_at"):
        to_utc(rows, "created_at", zone, dialect)
