"""The product end to end without Dagster: a real registry, a real ledger, a real SMTP server, day after day."""

from support.pipeline import DAY, NOW, MakePipeline, Registry
from support.scenarios import HOSTILE, HOUR, IN_TWO_DAYS, html, recipients, text
from support.smtpd import Smtpd


def test_token_two_days_out_gets_one_email_to_the_right_person(registry: Registry, make_pipeline: MakePipeline) -> None:
    registry.user("bob", email="bob@example.org")
    ada = registry.user("ada", email="ada@example.org", name="Ada")
    token = registry.token(ada, expires_at=IN_TWO_DAYS, name="release-bot")
    with Smtpd() as relay:
        house = make_pipeline(relay)
        first = house.run(NOW)
        again = [house.run(NOW), house.run(NOW + HOUR), house.run(NOW + DAY)]
    assert (first.numbers, [day.numbers for day in again]) == ({"sent": 1}, [{}, {}, {}])
    (accepted,) = relay.accepted
    assert (accepted.sender, accepted.recipient) == ("noreply@example.org", "ada@example.org")
    assert accepted.message["To"] == "ada@example.org"
    assert accepted.message["Subject"] == "Your Example Registry API token expires in 2 days"
    for body in (text(accepted), html(accepted)):
        assert "release-bot" in body
        assert "Ada" in body
        assert f"https://example.org/settings/tokens/new?from={token}" in body
        assert "09:00" in body
        assert "UTC" in body
    (entry,) = house.history()
    assert (entry["state"], entry["recipient_id"], entry["sent_at"]) == ("sent", str(ada), "2026-11-20T09:00:00Z")
    assert entry["message_id"] == accepted.message["Message-ID"]
    assert again[0].examination.reasons == {"already_notified": 1}


def test_token_is_told_once_at_each_step_of_its_life(registry: Registry, make_pipeline: MakePipeline) -> None:
    """A run each morning, from before the first step until long after the last."""
    expiry = NOW + 12 * HOUR
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=expiry)
    with Smtpd() as relay:
        house = make_pipeline(relay)
        sent_on = {
            back: day.numbers
            for back in [*range(32, 28, -1), 20, *range(9, -5, -1)]
            if (day := house.run(NOW - back * DAY)).numbers
        }
    assert sent_on == {30: {"sent": 1}, 7: {"sent": 1}, 1: {"sent": 1}, -1: {"sent": 1}}
    entries = house.history()
    assert [entry["tier"] for entry in entries] == ["month", "week", "day", "expired"]
    assert [accepted.message["Subject"] for accepted in relay.accepted] == [
        "Your Example Registry API token expires in 30 days",
        "Your Example Registry API token expires in 7 days",
        "Your Example Registry API token expires in 1 day and 12 hours",
        "Your Example Registry API token has expired",
    ]


def test_nobody_is_told_without_need(registry: Registry, make_pipeline: MakePipeline) -> None:
    ada = registry.user("ada", email="ada@example.org")
    registry.token(ada, expires_at=NOW + 60 * DAY, name="beyond every tier")
    registry.token(ada, expires_at=None, name="never expires")
    registry.token(ada, expires_at=NOW - 10 * DAY, name="long expired")
    registry.token(ada, expires_at=NOW + 3 * DAY, lifetime=5 * DAY, name="issued for five days")
    registry.token(ada, expires_at=IN_TWO_DAYS, revoked=True)
    registry.token(ada, expires_at=IN_TWO_DAYS, expiry_notification_at=NOW + 2 * DAY, name="told by an older job")
    with Smtpd() as relay:
        house = make_pipeline(relay)
        day = house.run(NOW)
    assert (day.numbers, day.skipped, relay.accepted, house.history()) == ({}, {}, [], [])
    assert day.examination.reasons == {"lifetime_too_short": 1, "revoked": 1, "already_notified": 1}
    assert relay.connections == 0, "with nothing to send, the relay is left alone"


def test_token_issued_for_five_days_is_told_on_its_last_day(registry: Registry, make_pipeline: MakePipeline) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 3 * DAY, lifetime=5 * DAY)
    with Smtpd() as relay:
        house = make_pipeline(relay)
        assert [house.run(NOW + number * DAY).sent for number in range(4)] == [0, 1, 0, 1]


def test_two_tokens_of_one_user_make_one_email_naming_both(registry: Registry, make_pipeline: MakePipeline) -> None:
    ada = registry.user("ada", email="ada@example.org")
    registry.token(ada, expires_at=NOW + 6 * DAY, name="later-token")
    registry.token(ada, expires_at=NOW + 20 * HOUR, name="sooner-token")
    with Smtpd() as relay:
        house = make_pipeline(relay)
        day = house.run(NOW)
        assert house.run(NOW).numbers == {}
    assert {tier: report.sent for tier, report in day.tiers.items()} == {"expired": 0, "day": 1, "week": 0, "month": 0}
    (accepted,) = relay.accepted
    assert accepted.message["Subject"] == ("2 of your Example Registry API tokens expire soon; the first in 20 hours")
    for body in (text(accepted), html(accepted)):
        assert 0 < body.index("sooner-token") < body.index("later-token")


def test_expired_and_expiring_tokens_share_an_email(registry: Registry, make_pipeline: MakePipeline) -> None:
    ada = registry.user("ada", email="ada@example.org")
    registry.token(ada, expires_at=NOW + DAY, name="dying-token")
    registry.token(ada, expires_at=NOW - HOUR, name="dead-token")
    with Smtpd() as relay:
        assert make_pipeline(relay).run(NOW).sent == 1
    (accepted,) = relay.accepted
    assert accepted.message["Subject"].startswith("1 of your Example Registry API tokens has expired; 1 more expires")
    assert 0 < text(accepted).index("dead-token") < text(accepted).index("dying-token")


def test_recipient_without_an_address_is_counted_and_blocks_nobody(
    registry: Registry, make_pipeline: MakePipeline
) -> None:
    nowhere, unverified = registry.user("nowhere"), registry.user("unverified", email="eve@example.org", verified=False)
    broken = registry.user("broken", email="not an address")
    ada = registry.user("ada", email="ada@example.org")
    for user in (nowhere, unverified, broken, ada, nowhere):
        registry.token(user, expires_at=IN_TWO_DAYS)
    with Smtpd() as relay:
        house = make_pipeline(relay)
        day = house.run(NOW)
        assert day.numbers == {"sent": 1}
        assert day.skipped == {"no_address": 1, "unverified_address": 1, "bad_address": 1}, "counted in notices"
        assert day.examination.reasons == {"no_address": 2, "unverified_address": 1}
        assert recipients(relay) == ["ada@example.org"]
        registry.execute("UPDATE emails SET verified = true, email = login FROM (SELECT id, gh_login || '@example.org'"
                         " AS login FROM users) AS u WHERE u.id = user_id")  # fmt: skip
        registry.execute("INSERT INTO emails (user_id, email, verified) VALUES (%s, 'now@example.org', true)", nowhere)
        later = house.run(NOW + HOUR)
    assert later.numbers == {"sent": 3}, "a reason never uses up a notice"
    assert recipients(relay)[1:] == ["broken@example.org", "now@example.org", "unverified@example.org"]


def test_renewed_token_is_told_afresh(registry: Registry, make_pipeline: MakePipeline) -> None:
    token = registry.token(registry.user("ada", email="ada@example.org"), expires_at=IN_TWO_DAYS)
    with Smtpd() as relay:
        house = make_pipeline(relay)
        assert house.run(NOW).sent == 1
        registry.change(token, expired_at=NOW + 60 * DAY)
        assert [house.run(NOW + number * DAY).sent for number in (1, 2, 3, 28, 29, 30)] == [0, 0, 0, 0, 1, 0]


def test_token_revoked_between_planning_and_sending_is_skipped(
    registry: Registry, make_pipeline: MakePipeline, closed_port: int
) -> None:
    token = registry.token(registry.user("ada", email="ada@example.org"), expires_at=IN_TWO_DAYS)
    make_pipeline(closed_port).run(NOW)
    registry.change(token, revoked=True)
    with Smtpd() as relay:
        house = make_pipeline(relay)
        assert house.run(NOW + HOUR).skipped == {"revoked": 1}
        assert house.run(NOW + 2 * HOUR).skipped == {}
        registry.change(token, revoked=False)
        assert house.run(NOW + 3 * HOUR).sent == 1
    assert [entry["state"] for entry in house.history()] == ["skipped", "sent"]


def test_hostile_token_name_is_escaped_in_html_and_literal_in_text(
    registry: Registry, make_pipeline: MakePipeline
) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=IN_TWO_DAYS, name=HOSTILE)
    with Smtpd() as relay:
        make_pipeline(relay).run(NOW)
    (accepted,) = relay.accepted
    assert HOSTILE in text(accepted)
    assert "<script" not in html(accepted)
    assert "&lt;script&gt;" in html(accepted)
    assert all("script" not in str(value) for value in accepted.message.values())


def test_missed_days_leave_one_notice_at_the_present_urgency(registry: Registry, make_pipeline: MakePipeline) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 40 * DAY)
    with Smtpd() as relay:
        house = make_pipeline(relay)
        house.run(NOW)
        back = NOW + 39 * DAY
        for days_back in (0, 1, 2, 10):
            house.run(back, day=(back - days_back * DAY).date())
    assert [entry["tier"] for entry in house.history()] == ["day"]
    (accepted,) = relay.accepted
    assert accepted.message["Subject"] == "Your Example Registry API token expires in 1 day"


def test_what_waited_at_a_lesser_urgency_is_sent_at_the_present_one(
    registry: Registry, make_pipeline: MakePipeline, closed_port: int
) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 7 * DAY)
    assert make_pipeline(closed_port).run(NOW).numbers == {"waiting": 1}
    assert make_pipeline(closed_port).run(NOW + 3 * DAY).numbers == {"waiting": 1}
    with Smtpd() as relay:
        house = make_pipeline(relay)
        assert house.run(NOW + 6 * DAY).numbers == {"sent": 1}
    assert [(entry["tier"], entry["state"]) for entry in house.history()] == [("week", "withdrawn"), ("day", "sent")]


def test_tier_run_alone_leaves_the_others_waiting(registry: Registry, make_pipeline: MakePipeline) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 6 * DAY)
    registry.token(registry.user("bob", email="bob@example.org"), expires_at=NOW + 25 * DAY)
    with Smtpd() as relay:
        house = make_pipeline(relay)
        assert house.run(NOW, tiers=["month"]).sent == 1
        assert recipients(relay) == ["bob@example.org"]
        assert house.run(NOW).sent == 1
    assert recipients(relay) == ["ada@example.org", "bob@example.org"]
