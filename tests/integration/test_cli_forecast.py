"""The command ``forecast`` as a user calls it: one JSON object, or a table with a bar for each day."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from support.commands import Command
from support.pipeline import DAY, Registry


def three_people(registry: Registry) -> list[datetime]:
    """Two tokens that reach the tier `day` two days from now, of two people, and one the day after, of a third."""
    today = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    expiries = [today + 3 * DAY, today + 3 * DAY, today + 4 * DAY]
    for number, expires_at in enumerate(expiries):
        user = registry.user(f"user{number}", email=f"user{number}@example.org")
        registry.token(user, expires_at=expires_at, lifetime=6 * DAY)
    return [today + back * DAY for back in range(5)]


def test_forecast_as_json(configured: Callable[..., Command], registry: Registry) -> None:
    days = three_people(registry)
    said = configured()("forecast", "--days", "5", "--json")
    expired_and_day = [(0, 0), (0, 0), (0, 2), (0, 1), (2, 0)]
    tiers = [{"expired": expired, "day": day, "week": 0, "month": 0} for expired, day in expired_and_day]
    assert (said.status, said.err) == (0, "")
    assert json.loads(said.out) == {
        "version": 1,
        "days": [
            {"date": day.date().isoformat(), "tiers": counts, "notices": sum(counts.values())}
            for day, counts in zip(days, tiers, strict=True)
        ],
    }


def test_forecast_as_a_table_with_bars(
    configured: Callable[..., Command], registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fullest day has the longest bar, and what the fuse would hold is said."""
    monkeypatch.setenv("COLUMNS", "80")
    days = three_people(registry)
    said = configured(delivery={"max_notices": 1})("forecast", "--days", "4")
    assert said.status == 0
    assert "3 notices in 4 days" in said.out
    rows = {line.split()[2]: line for line in said.out.splitlines() if f" {days[0].year}-" in line}
    bars = [rows[day.date().isoformat()].count("▓") for day in days[:4]]
    assert bars == [0, 0, 18, 9]
    assert said.out.splitlines()[-1] == (
        f"{days[2].date()}: over delivery.max_notices of 1; the fuse holds the day until you approve it."
    )


def test_forecast_of_nothing(configured: Callable[..., Command], registry: Registry) -> None:
    assert registry.execute("SELECT * FROM api_tokens") == []
    said = configured()("forecast", "--days", "1")
    assert (said.status, said.err) == (0, "")
    assert "0 notices in 1 day" in said.out


@pytest.mark.parametrize("output", [(), ("--json",)], ids=["table", "json"])
def test_forecast_goes_on_without_a_ledger_that_is_away(
    configured: Callable[..., Command], registry: Registry, output: tuple[str, ...]
) -> None:
    """As if nothing had been told, and it says so: a first look needs no ledger."""
    three_people(registry)
    away = {"url": "postgresql://writer@127.0.0.1:1/ledger"}
    said = configured(ledger=away)("forecast", "--days", "5", *output)
    assert said.status == 0
    assert said.err == (
        "Forecast as if nothing had been told yet. The database of ledger.url (writer@127.0.0.1:1/ledger) cannot be "
        "reached; check that it runs and that this machine may connect.\n"
    )
    assert said.out == configured()("forecast", "--days", "5", *output).out


def test_forecast_refuses_no_days_and_an_unreachable_source(configured: Callable[..., Command]) -> None:
    said = configured()("forecast", "--days", "0")
    assert (said.status, said.err) == (2, "Invalid value for '--days': 0 is not in the range 1<=x<=366. See --help.\n")
    said = configured(source={"url": "postgresql://reader@127.0.0.1:1/registry"})("forecast", "--json")
    assert (said.status, said.out) == (1, "")
    assert "cannot be reached; check that it runs" in said.err
