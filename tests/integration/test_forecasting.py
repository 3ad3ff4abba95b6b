"""The forecast against what really happens: each day planned and sent, with the clock set to it."""

import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.pipeline import DAY, NOW, YEAR, Day, PipelineRunner, Registry
from support.smtpd import Smtpd

from token_pipelines.operations.forecasting import ForecastDay, forecast

HOUR = timedelta(hours=1)
DAYS = 15

TEAMS = """
SELECT api_tokens.id AS token_id, recipients.id AS recipient_id, api_tokens.created_at,
    api_tokens.expired_at AS expires_at, api_tokens.name AS token_name, recipients.name AS recipient_name,
    emails.email, emails.verified AS email_verified, api_tokens.revoked,
    CASE WHEN recipients.id % 3 <> 0 THEN api_tokens.expiry_notification_at END AS last_notified_at,
    CASE WHEN api_tokens.name = 'replaced' THEN api_tokens.expired_at - interval '40 hours' END AS replaced_at
FROM api_tokens
JOIN users AS recipients ON recipients.id IN (api_tokens.user_id, api_tokens.user_id + 1)
LEFT JOIN emails ON emails.user_id = recipients.id
WHERE api_tokens.expired_at >= :expires_after AND api_tokens.expired_at < :expires_before
"""
"""A token belongs to two people, and what an older job did counts for some of them only."""

SHARES = [
    {"name": "week", "before": "7d"},
    {"name": "tenth", "remaining": "10%", "at_most": "30d"},
    {"name": "third", "remaining": "33%", "at_most": "20d"},
    {"name": "expired", "after": "0d", "within": "3d"},
]
"""Of two tokens of one person, the one with the smaller lead names the notice, whichever tier that is."""

EXPIRED_ONLY = [{"name": "dead", "after": "0d", "within": "2d"}, {"name": "gone", "after": "3d", "within": "5d"}]


def fill(registry: Registry, seed: int, *, people: int = 12, tokens: int = 90) -> None:
    rng = random.Random(seed)  # noqa: S311 -- a story, the same every time
    users = [
        registry.user(f"user{number}", email=f"user{number}@example.org" if rng.random() < 0.9 else None,
                      verified=rng.random() < 0.9)
        for number in range(people)
    ]  # fmt: skip
    for _ in range(tokens):
        expires_at = NOW + timedelta(hours=rng.randint(-6 * 24, 75 * 24))
        marked = expires_at - timedelta(hours=rng.randint(1, 40 * 24)) if rng.random() < 0.2 else None
        registry.token(
            rng.choice(users),
            expires_at=expires_at,
            lifetime=rng.choice([HOUR, 7 * DAY, 30 * DAY, 31 * DAY, YEAR]),
            revoked=rng.random() < 0.1,
            name="replaced" if rng.random() < 0.1 else "ci",
            expiry_notification_at=marked,
        )


def predicted(house: PipelineRunner, now: datetime, days: int = DAYS) -> list[ForecastDay]:
    parts = house.parts(now)
    try:
        return forecast(parts, days=days, on_warning=pytest.fail)
    finally:
        parts.ledger.close()


def sent(day: Day) -> dict[str, int]:
    assert day.numbers in ({}, {"sent": day.sent})
    assert day.skipped.keys() <= {"no_address", "unverified_address", "not_in_rollout"}
    return {tier: report.sent for tier, report in day.tiers.items()}


@pytest.mark.parametrize(
    ("seed", "sections"),
    [
        (1, {"delivery": {"rollout_percent": 80}}),
        (3, {"source": {"query": "teams.sql"}, "schedule": {"at": "02:30", "timezone": "America/New_York"}}),
        (5, {"tiers": EXPIRED_ONLY}),
        (7, {"tiers": SHARES}),
    ],
    ids=["the-registry", "teams-in-another-zone", "after-the-expiry-only", "shares-of-a-lifetime"],
)  # fmt: skip
def test_forecast_equals_what_each_day_sends(
    registry: Registry, registry_url: str, tmp_path: Path, seed: int, sections: dict[str, Any]
) -> None:
    """On every one of the days, when each was run on time and everything was sent."""
    (tmp_path / "teams.sql").write_text(TEAMS, encoding="utf-8")
    fill(registry, seed)
    with Smtpd() as relay:
        house = PipelineRunner(tmp_path, registry_url, relay.port, **sections)
        schedule = house.config.schedule
        for back in (9, 8, 3):  # the ledger has a past, with missed days in it
            house.run(schedule.run_at((NOW - back * DAY).date()))
        days = predicted(house, schedule.run_at(NOW.date()))
        happened = [sent(house.run(schedule.run_at(day.day))) for day in days]
    assert [day.tiers for day in days] == happened
    assert sum(day.notices for day in days) > 5


@pytest.mark.parametrize("mode", ["live", "redirect"])
def test_forecast_counts_only_who_is_written_to(
    registry: Registry, registry_url: str, tmp_path: Path, mode: str
) -> None:
    """Neither a suppressed address, nor one that cannot be written to, nor one that was refused; as sending does."""
    for number in range(6):
        registry.token(registry.user(f"u{number}", email=f"u{number}@example.org"), expires_at=NOW + 7 * DAY + HOUR)
    registry.token(registry.user("odd", email="no address at all"), expires_at=NOW + 7 * DAY + HOUR)
    delivery = {"mode": mode, "redirect_to": "ops@example.org" if mode == "redirect" else None}
    with Smtpd() as relay:
        house = PipelineRunner(tmp_path, registry_url, relay.port, delivery=delivery)
        ledger = house.parts(NOW).ledger
        ledger.migrate()
        mine = ["ops@example.org"] if mode == "redirect" else ["u0@example.org", "U1@Example.org"]
        assert predicted(house, NOW, days=1)[0].notices == 6
        ledger.suppressions.add({ledger.hash_address(address) for address in mine}, at=NOW, cause="by hand")
        days = predicted(house, NOW, days=2)
        happened = [house.run(NOW + number * DAY).sent for number in range(2)]
    assert [day.notices for day in days] == happened == ([0, 0] if mode == "redirect" else [4, 0])


def test_forecast_of_today_is_what_is_left_of_it(registry: Registry, registry_url: str, tmp_path: Path) -> None:
    """Before the day's run it has all, after it nothing; a run that was missed would send now."""
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 7 * DAY + HOUR)
    with Smtpd() as relay:
        house = PipelineRunner(tmp_path, registry_url, relay.port)
        early, late = (predicted(house, NOW + hours * HOUR, days=2) for hours in (-3, 5))
        house.run(NOW)
        after = predicted(house, NOW + 5 * HOUR, days=2)
    week = {"expired": 0, "day": 0, "week": 1, "month": 0}
    nothing = dict.fromkeys(week, 0)
    assert [day.tiers for day in early] == [week, nothing]
    assert [day.tiers for day in late] == [week, nothing]
    assert [day.tiers for day in after] == [nothing, nothing]


def test_forecast_needs_no_ledger_and_makes_none(registry: Registry, registry_url: str, tmp_path: Path) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 12 * HOUR)
    [today] = predicted(PipelineRunner(tmp_path, registry_url, 1), NOW, days=1)
    assert (today.day, today.notices, today.tiers["day"]) == (NOW.date(), 1, 1)
    assert registry.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'token_pipelines'") == []


def test_forecast_before_the_first_day_and_of_nothing(registry: Registry, registry_url: str, tmp_path: Path) -> None:
    """Nothing is sent before schedule.start_date; an empty table is a forecast too."""
    start = {"start_date": (NOW + 2 * DAY).date()}
    house = PipelineRunner(tmp_path, registry_url, 1, schedule=start)
    assert [day.notices for day in predicted(house, NOW, days=3)] == [0, 0, 0]
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 3 * DAY)
    assert [day.notices for day in predicted(house, NOW, days=3)] == [0, 0, 1]
