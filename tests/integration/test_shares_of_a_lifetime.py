"""Tiers that begin when a share of the lifetime is left, end to end: each token has a lead of its own."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.pipeline import DAY, NOW, YEAR, PipelineRunner, Registry
from support.smtpd import Smtpd

HOUR = timedelta(hours=1)
TIERS: Any = [
    {"name": "expired", "after": "0d", "within": "3d"},
    {"name": "week", "before": "7d"},
    {"name": "soon", "remaining": "10%", "at_most": "60d"},
]
EXPIRED_AND_SOON: Any = [TIERS[0], TIERS[2]]


def test_each_step_is_told_once_and_says_the_true_time_left(registry: Registry, tmp_path: Path) -> None:
    ada = registry.user("ada", email="ada@example.org")
    registry.token(ada, expires_at=NOW + 100 * DAY, lifetime=400 * DAY)
    sent = []
    with Smtpd() as relay:
        house = PipelineRunner(tmp_path, registry.url, relay.port, tiers=TIERS)
        for days in range(55, 104):
            run = house.run(NOW + days * DAY)
            sent += [(days, tier) for tier, report in run.tiers.items() if report.sent]
    # 40 days before the expiry, 7 before it, and after it; a run looks a day and its grace ahead.
    assert sent == [(59, "soon"), (92, "week"), (100, "expired")]
    assert "in 41 days" in relay.accepted[0].message.get_body(("plain",)).get_content()  # type: ignore[union-attr]
    assert not any("60 days" in accepted.data.decode() for accepted in relay.accepted)


def test_token_of_an_hour_leads_to_no_email_at_any_time(registry: Registry, tmp_path: Path) -> None:
    ada = registry.user("ada", email="ada@example.org")
    registry.token(ada, expires_at=NOW + HOUR, lifetime=HOUR)
    with Smtpd() as relay:
        house = PipelineRunner(tmp_path, registry.url, relay.port, tiers=EXPIRED_AND_SOON)
        runs = [house.run(NOW), house.run(NOW + 2 * HOUR), house.run(NOW + DAY)]
    assert [dict(run.examination.reasons) for run in runs] == [{"lifetime_too_short": 1}] * 3
    assert relay.accepted == []


@pytest.mark.parametrize(("email", "outcome"), [("ada@example.org", "sent"), (None, "skipped")])
def test_digest_stands_in_the_tier_of_the_smallest_lead(
    registry: Registry, tmp_path: Path, email: str | None, outcome: str
) -> None:
    """The ladder puts week before soon; the token that lives for 30 days began its tenth three days before its end."""
    ada = registry.user("ada", email=email)
    registry.token(ada, expires_at=NOW + 2 * DAY, lifetime=YEAR, name="week")
    registry.token(ada, expires_at=NOW + 2 * DAY, lifetime=30 * DAY, name="soon")
    with Smtpd() as relay:
        house = PipelineRunner(tmp_path, registry.url, relay.port, tiers=TIERS)
        run = house.run(NOW)
        again = house.run(NOW)
    done = {tier: report.sent + report.skipped.total() for tier, report in run.tiers.items()}
    assert done == {"expired": 0, "week": 0, "soon": 1}
    assert again.sent == 0
    lines = [(entry["tier"], sorted(t["tier"] for t in entry["tokens"])) for entry in house.history()]
    assert lines == ([("soon", ["soon", "week"])] if outcome == "sent" else [])
