"""What crates.io's own test of its expiry job asks of it (rust-lang/crates.io, expiry_notification.rs), asked of us.

Its job knows one threshold, three days, and looks no further than that at each run. Ours looks ahead to the next run,
so that nobody gets less than three days: "not yet" begins a day and the grace later than there.
"""

import pytest
from support.pipeline import DAY, NOW, MakePipeline, PipelineRunner, Registry
from support.smtpd import Smtpd

THRESHOLD = 3 * DAY
NOT_YET = THRESHOLD + 2 * DAY
TIERS = [{"name": "soon", "before": "3d"}]


@pytest.fixture
def pipeline(make_pipeline: MakePipeline, relay: Smtpd) -> PipelineRunner:
    return make_pipeline(relay, tiers=TIERS)


@pytest.fixture
def token(registry: Registry) -> str:
    """Return a token about to expire, among three of the same user that are not."""
    user = registry.user("a", email="testuser@example.com")
    for number in range(3):
        registry.token(user, expires_at=NOW + NOT_YET, name=f"test_token{number}")
    return registry.token(user, expires_at=NOW + THRESHOLD - DAY, name="test_token")


@pytest.mark.usefixtures("token")
def test_owner_of_expiring_token_is_told(pipeline: PipelineRunner, relay: Smtpd) -> None:
    pipeline.run(NOW)

    [mail] = relay.accepted
    assert mail.recipient == "testuser@example.com"
    body = mail.message.get_body(("plain",))
    assert body is not None
    assert "test_token" in body.get_content()
    assert "22 November 2026" in body.get_content()


def test_told_token_is_marked(pipeline: PipelineRunner, token: str) -> None:
    pipeline.run(NOW)

    assert pipeline.told_of(token) == [("soon", "sent")]


def test_tokens_that_expire_later_are_neither_told_nor_marked(
    pipeline: PipelineRunner, registry: Registry, relay: Smtpd, token: str
) -> None:
    pipeline.run(NOW)

    [mail] = relay.accepted
    assert not any(f"test_token{number}" in mail.data.decode() for number in range(3))
    marked = registry.execute("SELECT token_id FROM token_pipelines.notice_tokens")
    assert marked == [(token,)]


def test_second_run_tells_nobody_again_and_nobody_of_a_token_that_is_dead(
    pipeline: PipelineRunner, registry: Registry, relay: Smtpd, token: str
) -> None:
    pipeline.run(NOW)
    [(user,)] = registry.execute("SELECT user_id FROM api_tokens WHERE id = %s", token)
    registry.token(user, expires_at=NOW - DAY, name="expired_token")

    pipeline.run(NOW)

    assert len(relay.accepted) == 1
