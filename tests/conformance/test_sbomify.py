"""What sbomify's daily sweep for expiring access tokens promises (its test_expiry_warnings.py), asked of ours.

Its thresholds are 14, 7 and 1 days. It marks each wider threshold as told, row by row; ours compares instants, so a
wider tier counts as passed because it began earlier.
"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.pipeline import DAY, NOW, PipelineRunner, Registry
from support.smtpd import Smtpd

HOUR = timedelta(hours=1)
TIERS = [
    {"name": "fourteen", "before": "14d"},
    {"name": "seven", "before": "7d"},
    {"name": "last", "before": "1d"},
]


@pytest.fixture
def server() -> Iterator[Smtpd]:
    with Smtpd() as server:
        yield server


@pytest.fixture
def registry(registry_url: str) -> Registry:
    return Registry(registry_url)


@pytest.fixture
def pipeline(tmp_path: Path, registry_url: str, server: Smtpd) -> PipelineRunner:
    sections: dict[str, Any] = {"tiers": TIERS}
    return PipelineRunner(tmp_path, registry_url, server.port, **sections)


def told_of(pipeline: PipelineRunner, token: str) -> list[tuple[str, str]]:
    """Return the tier and the state of every notice about a token."""
    return sorted((entry["tier"], entry["state"]) for entry in pipeline.history(token_id=token))


def test_first_run_at_five_days_sends_one_email_and_the_wider_tier_counts_as_passed(
    pipeline: PipelineRunner, registry: Registry, server: Smtpd
) -> None:
    token = registry.token(
        registry.user("owner", email="owner@example.com"), expires_at=NOW + 5 * DAY, lifetime=90 * DAY
    )

    for _ in range(3):
        pipeline.run(NOW)

    assert [mail.recipient for mail in server.accepted] == ["owner@example.com"]
    assert told_of(pipeline, token) == [("seven", "sent")]


def test_address_added_later_gets_the_mail(pipeline: PipelineRunner, registry: Registry, server: Smtpd) -> None:
    user = registry.user("owner")
    registry.token(user, expires_at=NOW + 5 * DAY, lifetime=90 * DAY)

    assert pipeline.run(NOW).skipped == {"no_address": 1}
    assert server.accepted == []
    registry.execute("INSERT INTO emails (user_id, email, verified) VALUES (%s, 'owner@example.com', true)", user)
    pipeline.run(NOW + DAY)

    assert [mail.recipient for mail in server.accepted] == ["owner@example.com"]


@pytest.mark.parametrize("lifetime", [7 * DAY, 14 * DAY])
def test_lifetime_equal_to_the_tier_is_silent(
    pipeline: PipelineRunner, registry: Registry, server: Smtpd, lifetime: timedelta
) -> None:
    registry.token(registry.user("owner", email="owner@example.com"), expires_at=NOW + lifetime, lifetime=lifetime)

    day = pipeline.run(NOW)

    assert day.examination.reasons == {"lifetime_too_short": 1}
    assert server.accepted == []


def test_narrower_tiers_of_a_short_lived_token_are_told(pipeline: PipelineRunner, registry: Registry) -> None:
    token = registry.token(
        registry.user("owner", email="owner@example.com"), expires_at=NOW + 7 * DAY, lifetime=14 * DAY
    )

    pipeline.run(NOW)
    assert told_of(pipeline, token) == [("seven", "sent")]
    pipeline.run(NOW + 6 * DAY)

    assert told_of(pipeline, token) == [("last", "sent"), ("seven", "sent")]


def test_ten_days_then_twelve_hours_gives_two_emails(
    pipeline: PipelineRunner, registry: Registry, server: Smtpd
) -> None:
    expires_at = NOW + 10 * DAY
    token = registry.token(registry.user("owner", email="owner@example.com"), expires_at=expires_at, lifetime=90 * DAY)

    pipeline.run(NOW)
    for _ in range(2):
        pipeline.run(expires_at - 12 * HOUR)

    assert told_of(pipeline, token) == [("fourteen", "sent"), ("last", "sent")]
    assert len(server.accepted) == 2


def test_expiry_moved_from_ten_days_to_twelve_hours_gives_two_emails(
    pipeline: PipelineRunner, registry: Registry, server: Smtpd
) -> None:
    """The original moves the expiry, which gives a token a new life: what was told of the old one counts no more."""
    token = registry.token(
        registry.user("owner", email="owner@example.com"), expires_at=NOW + 10 * DAY, lifetime=90 * DAY
    )

    pipeline.run(NOW)
    registry.change(token, expired_at=NOW + 12 * HOUR)
    pipeline.run(NOW)
    pipeline.run(NOW)

    assert told_of(pipeline, token) == [("fourteen", "sent"), ("last", "sent")]
    assert len(server.accepted) == 2


def test_expired_and_eternal_tokens_are_ignored(pipeline: PipelineRunner, registry: Registry, server: Smtpd) -> None:
    user = registry.user("owner", email="owner@example.com")
    registry.token(user, expires_at=NOW - DAY, name="already gone")
    registry.token(user, expires_at=None, name="forever")

    pipeline.run(NOW)

    assert server.accepted == []
    assert pipeline.states() == {}
