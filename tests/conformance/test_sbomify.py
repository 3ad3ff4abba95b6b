"""What sbomify's daily sweep for expiring access tokens promises (its test_expiry_warnings.py), asked of ours.

Its thresholds are 14, 7 and 1 days. It marks each wider threshold as told, row by row; ours compares instants, so a
wider tier counts as passed because it began earlier.
"""

from datetime import timedelta

import pytest
from support.pipeline import DAY, NOW, MakePipeline, PipelineRunner, Registry
from support.smtpd import Smtpd

HOUR = timedelta(hours=1)
TIERS = [
    {"name": "fourteen", "before": "14d"},
    {"name": "seven", "before": "7d"},
    {"name": "last", "before": "1d"},
]


@pytest.fixture
def pipeline(make_pipeline: MakePipeline, relay: Smtpd) -> PipelineRunner:
    return make_pipeline(relay, tiers=TIERS)


def test_first_run_at_five_days_sends_one_email_and_the_wider_tier_counts_as_passed(
    pipeline: PipelineRunner, registry: Registry, relay: Smtpd
) -> None:
    token = registry.token(
        registry.user("owner", email="owner@example.com"), expires_at=NOW + 5 * DAY, lifetime=90 * DAY
    )

    for _ in range(3):
        pipeline.run(NOW)

    assert [mail.recipient for mail in relay.accepted] == ["owner@example.com"]
    assert pipeline.told_of(token) == [("seven", "sent")]


def test_address_added_later_gets_the_mail(pipeline: PipelineRunner, registry: Registry, relay: Smtpd) -> None:
    user = registry.user("owner")
    registry.token(user, expires_at=NOW + 5 * DAY, lifetime=90 * DAY)

    assert pipeline.run(NOW).skipped == {"no_address": 1}
    assert relay.accepted == []
    registry.execute("INSERT INTO emails (user_id, email, verified) VALUES (%s, 'owner@example.com', true)", user)
    pipeline.run(NOW + DAY)

    assert [mail.recipient for mail in relay.accepted] == ["owner@example.com"]


@pytest.mark.parametrize("lifetime", [7 * DAY, 14 * DAY])
def test_lifetime_equal_to_the_tier_is_silent(
    pipeline: PipelineRunner, registry: Registry, relay: Smtpd, lifetime: timedelta
) -> None:
    registry.token(registry.user("owner", email="owner@example.com"), expires_at=NOW + lifetime, lifetime=lifetime)

    day = pipeline.run(NOW)

    assert day.examination.reasons == {"lifetime_too_short": 1}
    assert relay.accepted == []


def test_narrower_tiers_of_a_short_lived_token_are_told(pipeline: PipelineRunner, registry: Registry) -> None:
    token = registry.token(
        registry.user("owner", email="owner@example.com"), expires_at=NOW + 7 * DAY, lifetime=14 * DAY
    )

    pipeline.run(NOW)
    assert pipeline.told_of(token) == [("seven", "sent")]
    pipeline.run(NOW + 6 * DAY)

    assert pipeline.told_of(token) == [("last", "sent"), ("seven", "sent")]


def test_ten_days_then_twelve_hours_gives_two_emails(
    pipeline: PipelineRunner, registry: Registry, relay: Smtpd
) -> None:
    expires_at = NOW + 10 * DAY
    token = registry.token(registry.user("owner", email="owner@example.com"), expires_at=expires_at, lifetime=90 * DAY)

    pipeline.run(NOW)
    for _ in range(2):
        pipeline.run(expires_at - 12 * HOUR)

    assert pipeline.told_of(token) == [("fourteen", "sent"), ("last", "sent")]
    assert len(relay.accepted) == 2


def test_expiry_moved_from_ten_days_to_twelve_hours_gives_two_emails(
    pipeline: PipelineRunner, registry: Registry, relay: Smtpd
) -> None:
    """The original moves the expiry, which gives a token a new life: what was told of the old one counts no more."""
    token = registry.token(
        registry.user("owner", email="owner@example.com"), expires_at=NOW + 10 * DAY, lifetime=90 * DAY
    )

    pipeline.run(NOW)
    registry.change(token, expired_at=NOW + 12 * HOUR)
    pipeline.run(NOW)
    pipeline.run(NOW)

    assert pipeline.told_of(token) == [("fourteen", "sent"), ("last", "sent")]
    assert len(relay.accepted) == 2


def test_expired_and_eternal_tokens_are_ignored(pipeline: PipelineRunner, registry: Registry, relay: Smtpd) -> None:
    user = registry.user("owner", email="owner@example.com")
    registry.token(user, expires_at=NOW - DAY, name="already gone")
    registry.token(user, expires_at=None, name="forever")

    pipeline.run(NOW)

    assert relay.accepted == []
    assert pipeline.states() == {}
