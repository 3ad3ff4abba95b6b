"""What GitLab's workers for expiring and expired personal access tokens promise, asked of ours.

Scenarios from the specs of PersonalAccessTokens::ExpiringWorker and ::ExpiredNotificationWorker. GitLab's dates are
days, ours are instants; its bands are 60, 30 and 7 days, and "expired today".
"""

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta

import pytest
from support.pipeline import DAY, NOW, MakePipeline, PipelineRunner, Registry
from support.smtpd import Action, Smtpd

from token_pipelines.day import collect, plan_notices, read_tokens
from token_pipelines.delivery import batches
from token_pipelines.delivery import tier as delivery
from token_pipelines.delivery.counts import TierReport
from token_pipelines.planning import SnapshotCounts

TIERS = [
    {"name": "sixty", "before": "60d"},
    {"name": "thirty", "before": "30d"},
    {"name": "seven", "before": "7d"},
    {"name": "expired", "after": "0d", "within": "1d"},
]
REFUSED = "gone@example.org"
BUSY = "busy@example.org"
SENT_BEFORE_TIME_RUNS_OUT = 20


def refuse_some(stage: str, argument: str) -> Action | None:
    """One mailbox does not exist, another is full for now."""
    if stage == "rcpt" and argument == REFUSED:
        return Action(code=550, text="5.1.1 no such mailbox")
    if stage == "rcpt" and argument == BUSY:
        return Action(code=450, text="4.2.2 mailbox full")
    return None


@pytest.fixture
def relay() -> Iterator[Smtpd]:
    with Smtpd(script=refuse_some) as relay:
        yield relay


@pytest.fixture
def pipeline(make_pipeline: MakePipeline, relay: Smtpd) -> PipelineRunner:
    return make_pipeline(relay, tiers=TIERS)


def add_people(registry: Registry, count: int, expires_at: datetime, *, prefix: str = "person") -> list[str]:
    """So many users with one token each; their addresses."""
    addresses = [f"{prefix}{number}@example.org" for number in range(count)]
    for address in addresses:
        registry.token(registry.user(address, email=address), expires_at=expires_at)
    return addresses


def days(count: float) -> datetime:
    return NOW + count * DAY


def text(relay: Smtpd) -> str:
    """Return the body of the only email."""
    [mail] = relay.accepted
    body = mail.message.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def told(relay: Smtpd) -> Counter[str]:
    return Counter(mail.recipient for mail in relay.accepted)


def test_two_tokens_three_and_five_days_out_give_one_email(
    pipeline: PipelineRunner, registry: Registry, relay: Smtpd
) -> None:
    user = registry.user("user", email="user@example.org")
    registry.token(user, expires_at=days(5), name="five-days-out")
    registry.token(user, expires_at=days(3), name="three-days-out")
    registry.token(user, expires_at=days(5), name="told-already", expiry_notification_at=days(-1))
    registry.token(user, expires_at=days(180), name="half-a-year-out")

    tiers = pipeline.run(NOW).tiers

    body = text(relay)
    assert "three-days-out" in body
    assert "five-days-out" in body
    assert "told-already" not in body
    assert "half-a-year-out" not in body
    assert {name: report.sent for name, report in tiers.items()} == {"expired": 0, "seven": 1, "thirty": 0, "sixty": 0}


def test_nobody_is_told_when_no_token_needs_it(pipeline: PipelineRunner, registry: Registry, relay: Smtpd) -> None:
    user = registry.user("user", email="user@example.org")
    registry.token(user, expires_at=days(5), expiry_notification_at=days(-1))

    pipeline.run(NOW)

    assert relay.accepted == []
    assert pipeline.states() == {}


@pytest.mark.parametrize(("left", "band"), [(5, "seven"), (28, "thirty"), (57, "sixty"), (-0.1, "expired")])
def test_bands_are_disjoint(pipeline: PipelineRunner, registry: Registry, relay: Smtpd, left: float, band: str) -> None:
    token = registry.token(registry.user("user", email="user@example.org"), expires_at=days(left))

    tiers = pipeline.run(NOW).tiers

    assert {name: report.due for name, report in tiers.items() if report.due} == {band: 1}
    assert pipeline.told_of(token) == [(band, "sent")]
    assert len(relay.accepted) == 1


def test_token_is_told_once_in_each_band_on_its_way(pipeline: PipelineRunner, registry: Registry, relay: Smtpd) -> None:
    token = registry.token(registry.user("user", email="user@example.org"), expires_at=days(61) + timedelta(hours=3))

    for day in (0, 1, 2, 30, 31, 32, 54, 55, 56, 61, 62, 63):
        pipeline.run(days(day))

    assert pipeline.told_of(token) == [(band, "sent") for band in ("expired", "seven", "sixty", "thirty")]
    assert len(relay.accepted) == 4


def test_token_expired_today_is_told_once(pipeline: PipelineRunner, registry: Registry, relay: Smtpd) -> None:
    registry.token(
        registry.user("user", email="user@example.org"), expires_at=days(0) - timedelta(hours=1), name="dead-token"
    )

    for day in (0, 0, 1):
        pipeline.run(days(day))

    assert "dead-token" in text(relay)


@pytest.mark.parametrize("left", [-0.1, 5])
def test_revoked_token_is_not_told(pipeline: PipelineRunner, registry: Registry, relay: Smtpd, left: float) -> None:
    registry.token(registry.user("user", email="user@example.org"), expires_at=days(left), revoked=True)

    pipeline.run(NOW)

    assert relay.accepted == []


def test_token_expired_long_ago_is_not_told(pipeline: PipelineRunner, registry: Registry, relay: Smtpd) -> None:
    registry.token(registry.user("user", email="user@example.org"), expires_at=days(-2))

    pipeline.run(NOW)

    assert relay.accepted == []


def test_more_than_one_page_is_told_whole(
    pipeline: PipelineRunner, registry: Registry, relay: Smtpd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "CLAIM_SIZE", 20)
    people = add_people(registry, 90, days(6))

    tiers = pipeline.run(NOW).tiers

    assert tiers["seven"].sent == len(people)
    assert told(relay) == Counter(people)


def test_one_failing_recipient_does_not_stop_the_next(
    pipeline: PipelineRunner, registry: Registry, relay: Smtpd
) -> None:
    people = add_people(registry, 5, days(5), prefix="before")
    for address in (REFUSED, BUSY):
        registry.token(registry.user(address, email=address), expires_at=days(5))
    people += add_people(registry, 5, days(5), prefix="after")

    day = pipeline.run(NOW)

    assert day.troubles == []
    assert day.numbers == {"sent": 10, "deferred": 1, "failed": 1}
    assert told(relay) == Counter(people)
    pipeline.run(NOW)
    assert told(relay) == Counter(people)


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """A shell starts what runs in its background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_batch_in_progress_is_kept_when_time_runs_out(
    pipeline: PipelineRunner, registry: Registry, relay: Smtpd
) -> None:
    people = add_people(registry, 60, days(5))
    parts = pipeline.parts(NOW)
    parts.ledger.migrate()
    snapshot = collect(parts, read_tokens(parts, day=NOW.date(), counts=SnapshotCounts()))
    plan_notices(parts, snapshot, day=NOW.date(), tiers=["seven"], run_id="runs out of time")

    def stop(done: int) -> None:
        if done == SENT_BEFORE_TIME_RUNS_OUT:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    report = TierReport()
    with closing(parts.ledger), pytest.raises(KeyboardInterrupt):
        delivery.send_tier(
            parts, "seven", run_id="runs out of time", report=report, has_ended=lambda _: False, on_progress=stop
        )

    sent = len(relay.accepted)
    assert SENT_BEFORE_TIME_RUNS_OUT <= sent < len(people)
    assert report.sent == sent
    assert Counter(pipeline.states().values()) == {"sent": sent, "planned": len(people) - sent}
    assert pipeline.run(NOW).sent == len(people) - sent
    assert told(relay) == Counter(people)
