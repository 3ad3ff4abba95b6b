"""The product end to end without Dagster: a real registry, a real ledger, a real SMTP server, day after day."""

import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from smtpd import Accepted, Action, Script, Smtpd, times
from typing import Any

import pytest
from pipeline import DAY, NOW, YEAR, PipelineRunner, Registry

from token_pipelines.delivery.emails import READ_AGAIN_AFTER, WRITTEN_AGAIN_AFTER
from token_pipelines.errors import FuseTripped
from token_pipelines.model import Mode
from token_pipelines.smtp.rate import RateLimit

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
IN_TWO_DAYS = NOW + 2 * DAY
HOSTILE = "<script>alert('hi')</script>"

MakePipeline = Callable[..., PipelineRunner]


@pytest.fixture
def registry(registry_url: str) -> Registry:
    return Registry(registry_url)


@pytest.fixture
def pipeline(tmp_path: Path, registry_url: str) -> MakePipeline:
    """Configure a pipeline that sends to this relay; keywords change the config's sections."""

    def make(relay: Smtpd | int, **sections: Any) -> PipelineRunner:  # noqa: ANN401 -- YAML
        return PipelineRunner(tmp_path, registry_url, relay if isinstance(relay, int) else relay.port, **sections)

    return make


def recipients(relay: Smtpd) -> list[str]:
    return sorted(accepted.recipient for accepted in relay.accepted)


def text(accepted: Accepted) -> str:
    body = accepted.message.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def html(accepted: Accepted) -> str:
    body = accepted.message.get_body(("html",))
    assert body is not None
    return str(body.get_content())


def at_stage(stage: str, action: Action, *, of: str = "") -> Script:
    """A script that acts each time at a stage, for addresses that hold ``of``."""
    return lambda reached, argument: action if reached == stage and of in argument else None


@pytest.fixture
def nobody() -> int:
    """A port of loopback at which nobody listens."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Who gets an email, and how many


def test_token_two_days_out_gets_one_email_to_the_right_person(registry: Registry, pipeline: MakePipeline) -> None:
    registry.user("bob", email="bob@example.org")
    ada = registry.user("ada", email="ada@example.org", name="Ada")
    token = registry.token(ada, expires_at=IN_TWO_DAYS, name="release-bot")
    with Smtpd() as relay:
        house = pipeline(relay)
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


def test_token_is_told_once_at_each_step_of_its_life(registry: Registry, pipeline: MakePipeline) -> None:
    """A run each morning, from before the first step until long after the last."""
    expiry = NOW + 12 * HOUR
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=expiry)
    with Smtpd() as relay:
        house = pipeline(relay)
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


def test_nobody_is_told_without_need(registry: Registry, pipeline: MakePipeline) -> None:
    ada = registry.user("ada", email="ada@example.org")
    registry.token(ada, expires_at=NOW + 60 * DAY, name="beyond every tier")
    registry.token(ada, expires_at=None, name="never expires")
    registry.token(ada, expires_at=NOW - 10 * DAY, name="long expired")
    registry.token(ada, expires_at=NOW + 3 * DAY, lifetime=5 * DAY, name="issued for five days")
    registry.token(ada, expires_at=IN_TWO_DAYS, revoked=True)
    registry.token(ada, expires_at=IN_TWO_DAYS, expiry_notification_at=NOW + 2 * DAY, name="told by an older job")
    with Smtpd() as relay:
        house = pipeline(relay)
        day = house.run(NOW)
    assert (day.numbers, day.skipped, relay.accepted, house.history()) == ({}, {}, [], [])
    assert day.examination.reasons == {"lifetime_too_short": 1, "revoked": 1, "already_notified": 1}
    assert relay.connections == 0, "with nothing to send, the relay is left alone"


def test_token_issued_for_five_days_is_told_on_its_last_day(registry: Registry, pipeline: MakePipeline) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 3 * DAY, lifetime=5 * DAY)
    with Smtpd() as relay:
        house = pipeline(relay)
        assert [house.run(NOW + number * DAY).sent for number in range(4)] == [0, 1, 0, 1]


def test_two_tokens_of_one_user_make_one_email_naming_both(registry: Registry, pipeline: MakePipeline) -> None:
    ada = registry.user("ada", email="ada@example.org")
    registry.token(ada, expires_at=NOW + 6 * DAY, name="later-token")
    registry.token(ada, expires_at=NOW + 20 * HOUR, name="sooner-token")
    with Smtpd() as relay:
        house = pipeline(relay)
        day = house.run(NOW)
        assert house.run(NOW).numbers == {}
    assert {tier: report.sent for tier, report in day.tiers.items()} == {"expired": 0, "day": 1, "week": 0, "month": 0}
    (accepted,) = relay.accepted
    assert accepted.message["Subject"] == ("2 of your Example Registry API tokens expire soon; the first in 20 hours")
    for body in (text(accepted), html(accepted)):
        assert 0 < body.index("sooner-token") < body.index("later-token")


def test_expired_and_expiring_tokens_share_an_email(registry: Registry, pipeline: MakePipeline) -> None:
    ada = registry.user("ada", email="ada@example.org")
    registry.token(ada, expires_at=NOW + DAY, name="dying-token")
    registry.token(ada, expires_at=NOW - HOUR, name="dead-token")
    with Smtpd() as relay:
        assert pipeline(relay).run(NOW).sent == 1
    (accepted,) = relay.accepted
    assert accepted.message["Subject"].startswith("1 of your Example Registry API tokens has expired; 1 more expires")
    assert 0 < text(accepted).index("dead-token") < text(accepted).index("dying-token")


def test_recipient_without_an_address_is_counted_and_blocks_nobody(registry: Registry, pipeline: MakePipeline) -> None:
    nowhere, unverified = registry.user("nowhere"), registry.user("unverified", email="eve@example.org", verified=False)
    broken = registry.user("broken", email="not an address")
    ada = registry.user("ada", email="ada@example.org")
    for user in (nowhere, unverified, broken, ada, nowhere):
        registry.token(user, expires_at=IN_TWO_DAYS)
    with Smtpd() as relay:
        house = pipeline(relay)
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


def test_renewed_token_is_told_afresh(registry: Registry, pipeline: MakePipeline) -> None:
    token = registry.token(registry.user("ada", email="ada@example.org"), expires_at=IN_TWO_DAYS)
    with Smtpd() as relay:
        house = pipeline(relay)
        assert house.run(NOW).sent == 1
        registry.change(token, expired_at=NOW + 60 * DAY)
        assert [house.run(NOW + number * DAY).sent for number in (1, 2, 3, 28, 29, 30)] == [0, 0, 0, 0, 1, 0]


def test_token_revoked_between_planning_and_sending_is_skipped(
    registry: Registry, pipeline: MakePipeline, nobody: int
) -> None:
    token = registry.token(registry.user("ada", email="ada@example.org"), expires_at=IN_TWO_DAYS)
    pipeline(nobody).run(NOW)
    registry.change(token, revoked=True)
    with Smtpd() as relay:
        house = pipeline(relay)
        assert house.run(NOW + HOUR).skipped == {"revoked": 1}
        assert house.run(NOW + 2 * HOUR).skipped == {}
        registry.change(token, revoked=False)
        assert house.run(NOW + 3 * HOUR).sent == 1
    assert [entry["state"] for entry in house.history()] == ["skipped", "sent"]


def test_hostile_token_name_is_escaped_in_html_and_literal_in_text(registry: Registry, pipeline: MakePipeline) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=IN_TWO_DAYS, name=HOSTILE)
    with Smtpd() as relay:
        pipeline(relay).run(NOW)
    (accepted,) = relay.accepted
    assert HOSTILE in text(accepted)
    assert "<script" not in html(accepted)
    assert "&lt;script&gt;" in html(accepted)
    assert all("script" not in str(value) for value in accepted.message.values())


def test_missed_days_leave_one_notice_at_the_present_urgency(registry: Registry, pipeline: MakePipeline) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 40 * DAY)
    with Smtpd() as relay:
        house = pipeline(relay)
        house.run(NOW)
        back = NOW + 39 * DAY
        for days_back in (0, 1, 2, 10):
            house.run(back, day=(back - days_back * DAY).date())
    assert [entry["tier"] for entry in house.history()] == ["day"]
    (accepted,) = relay.accepted
    assert accepted.message["Subject"] == "Your Example Registry API token expires in 1 day"


def test_what_waited_at_a_lesser_urgency_is_sent_at_the_present_one(
    registry: Registry, pipeline: MakePipeline, nobody: int
) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 7 * DAY)
    assert pipeline(nobody).run(NOW).numbers == {"waiting": 1}
    assert pipeline(nobody).run(NOW + 3 * DAY).numbers == {"waiting": 1}
    with Smtpd() as relay:
        house = pipeline(relay)
        assert house.run(NOW + 6 * DAY).numbers == {"sent": 1}
    assert [(entry["tier"], entry["state"]) for entry in house.history()] == [("week", "withdrawn"), ("day", "sent")]


def test_tier_run_alone_leaves_the_others_waiting(registry: Registry, pipeline: MakePipeline) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 6 * DAY)
    registry.token(registry.user("bob", email="bob@example.org"), expires_at=NOW + 25 * DAY)
    with Smtpd() as relay:
        house = pipeline(relay)
        assert house.run(NOW, tiers=["month"]).sent == 1
        assert recipients(relay) == ["bob@example.org"]
        assert house.run(NOW).sent == 1
    assert recipients(relay) == ["ada@example.org", "bob@example.org"]


# The relay in trouble


def people(registry: Registry, count: int, *, address: str = "person{}@example.org") -> list[str]:
    """So many people, each with a token that expires in two days; their ids, in the order in which they are sent to."""
    found = []
    for number in range(count):
        user = registry.user(f"person{number}", email=address.format(number))
        registry.token(user, expires_at=IN_TWO_DAYS)
        found.append(str(user))
    return found


def three_people(registry: Registry) -> dict[str, int]:
    people = {name: registry.user(name, email=f"{name}@example.org") for name in ("ada", "bob", "eve")}
    for user in people.values():
        registry.token(user, expires_at=IN_TWO_DAYS)
    return people


def test_relay_down_sends_nothing_marks_nothing_and_the_next_run_sends(
    registry: Registry, pipeline: MakePipeline, nobody: int
) -> None:
    three_people(registry)
    house = pipeline(nobody)
    day = house.run(NOW)
    assert day.numbers == {"waiting": 3}
    assert [str(trouble) for trouble in day.troubles] == [
        f"The relay 127.0.0.1:{nobody} refuses connections; check smtp.port, and that the relay runs."
    ]
    assert [(entry["state"], entry["attempts"]) for entry in house.history()] == [("planned", [])] * 3
    with Smtpd() as relay:
        assert pipeline(relay).run(NOW + HOUR).numbers == {"sent": 3}
    assert len(house.history()) == 3


@pytest.mark.parametrize(
    ("stage", "action", "said"),
    [
        ("connect", Action(code=554, text="5.3.2 closed"), "greeted us with 554 5.3.2 closed"),
        ("mail", Action(code=550, text="5.1.8 bad sender"), "answered 550 5.1.8 bad sender at MAIL FROM"),
        ("mail", Action(drop="before"), "connection lost at MAIL FROM"),
    ],
)
def test_trouble_of_the_relays_stops_the_tier_and_blames_nobody(
    registry: Registry, pipeline: MakePipeline, stage: str, action: Action, said: str
) -> None:
    three_people(registry)
    with Smtpd(script=at_stage(stage, action)) as relay:
        house = pipeline(relay)
        day = house.run(NOW)
    assert day.numbers == {"waiting": 3}
    (trouble,) = day.troubles
    assert said in str(trouble)
    assert set(house.states().values()) == {"planned"}
    assert registry.execute("SELECT 1 FROM token_pipelines.suppressions") == []
    with Smtpd() as relay:
        assert pipeline(relay).run(NOW + HOUR).numbers == {"sent": 3}


AT_THE_RECIPIENT = pytest.mark.parametrize(
    ("stage", "action", "said"),
    [
        ("rcpt", Action(code=550, text="5.7.1 listed"), "answered 550 5.7.1 listed at RCPT TO"),
        ("dot", Action(code=554, text="5.7.9 DMARC"), "answered 554 5.7.9 DMARC at the end of the message"),
        ("rcpt", Action(code=421, text="4.3.2 going down"), "answered 421 4.3.2 going down at RCPT TO"),
        ("data", Action(drop="before"), "connection lost at DATA"),
    ],
)
"""Trouble that may be one recipient's or everybody's: what the relay does, and what an operator reads of it."""


@AT_THE_RECIPIENT
def test_trouble_of_three_in_a_row_is_everybodys_and_stops_the_tier(
    registry: Registry, pipeline: MakePipeline, stage: str, action: Action, said: str
) -> None:
    people(registry, 5)
    with Smtpd(script=at_stage(stage, action)) as relay:
        house = pipeline(relay, smtp={"connections": 1})
        day = house.run(NOW)
    # One that was marked is put off; one that was not just waits.
    assert day.numbers == ({"deferred": 3, "waiting": 2} if stage == "dot" else {"deferred": 2, "waiting": 3})
    (trouble,) = day.troubles
    assert said in str(trouble)
    assert registry.execute("SELECT 1 FROM token_pipelines.suppressions") == []
    with Smtpd() as relay:
        assert pipeline(relay).run(NOW + HOUR).numbers == {"sent": 5}


@AT_THE_RECIPIENT
def test_trouble_of_one_recipient_is_theirs_alone(
    registry: Registry, pipeline: MakePipeline, stage: str, action: Action, said: str
) -> None:
    """A mailbox that takes no mail from outside answers 5.7.x for ever; nobody else must wait for its sake."""
    poisoned, *others = people(registry, 4)
    last: list[str] = []

    def script(reached: str, argument: str) -> Action | None:
        if reached == "rcpt":
            last.append(argument)
        return action if reached == stage and "person0@" in last[-1] else None

    with Smtpd(script=script) as relay:
        house = pipeline(relay, smtp={"connections": 1})
        day = house.run(NOW)
        assert (day.numbers, day.troubles) == ({"sent": 3, "deferred": 1}, [])
        (entry,) = house.history(recipient_id=poisoned)
        (attempt,) = entry["attempts"]
        assert (entry["state"], attempt["stage"]) == ("deferred", stage)
        assert (attempt["reply"] or "") in said
    assert house.states() == {poisoned: "deferred"} | dict.fromkeys(others, "sent")
    with Smtpd() as relay:
        assert pipeline(relay).run(NOW + HOUR).numbers == {"sent": 1}


def test_trouble_of_all_that_was_tried_is_told_even_if_that_was_one(registry: Registry, pipeline: MakePipeline) -> None:
    people(registry, 1)
    with Smtpd(script=at_stage("rcpt", Action(code=550, text="5.7.1 listed"))) as relay:
        day = pipeline(relay).run(NOW)
    assert day.numbers == {"deferred": 1}
    assert ["answered 550 5.7.1 listed at RCPT TO" in str(trouble) for trouble in day.troubles] == [True]


def test_login_refused_stops_the_tier_at_once(
    registry: Registry, pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause would not make the password right, so none is taken: these would last for an hour."""
    three_people(registry)
    monkeypatch.setenv("TOKEN_PIPELINES__SMTP__PASSWORD", "yesterday's")
    changes = {"username": "mailer", "connections": 1, "reconnect_pauses": ["1h", "1h"]}
    with Smtpd(credentials={"mailer": "today's"}) as relay:
        house = pipeline(relay, smtp=changes)
        day = house.run(NOW)
        assert day.numbers == {"waiting": 3}
        (trouble,) = day.troubles
        assert str(trouble) == (
            f"The relay 127.0.0.1:{relay.port} refused the login with 535 5.7.8 wrong user or password; "
            "check smtp.username and TOKEN_PIPELINES__SMTP__PASSWORD."
        )
        assert (relay.connections, relay.accepted) == (1, [])
        assert [(entry["state"], entry["attempts"]) for entry in house.history()] == [("planned", [])] * 3
        assert registry.execute("SELECT 1 FROM token_pipelines.suppressions") == []
        monkeypatch.setenv("TOKEN_PIPELINES__SMTP__PASSWORD", "today's")
        assert pipeline(relay, smtp=changes).run(NOW + HOUR).numbers == {"sent": 3}


def test_relay_that_fails_half_way_is_counted_truly(registry: Registry, pipeline: MakePipeline) -> None:
    three_people(registry)
    served = iter(range(100))
    script: Script = lambda stage, _: (  # noqa: E731 -- a script is a function of two arguments
        Action(code=421, text="4.3.2 enough") if stage == "rcpt" and next(served) >= 1 else None
    )
    with Smtpd(script=script) as relay:
        house = pipeline(relay, smtp={"connections": 1})
        day = house.run(NOW)
    assert day.numbers == {"sent": 1, "deferred": 2}
    assert ["4.3.2 enough" in str(trouble) for trouble in day.troubles] == [True]
    assert len(relay.accepted) == 1
    assert Counter(house.states().values()) == {"sent": 1, "deferred": 2}
    with Smtpd() as relay:
        assert pipeline(relay).run(NOW + HOUR).numbers == {"sent": 2}


def test_relay_that_allows_fewer_connections_gets_everything_over_these(
    registry: Registry, pipeline: MakePipeline
) -> None:
    people(registry, 30)
    connections = iter(range(100))
    script: Script = lambda stage, _: (  # noqa: E731 -- as above
        Action(code=421, text="4.7.0 too many connections") if stage == "connect" and next(connections) >= 2 else None
    )
    with Smtpd(script=script) as relay:
        day = pipeline(relay, smtp={"connections": 4}).run(NOW)
    assert (day.numbers, day.troubles) == ({"sent": 30}, [])
    assert len(relay.accepted) == 30


def test_relay_without_smtputf8_fails_those_who_need_it_and_no_others(
    registry: Registry, pipeline: MakePipeline
) -> None:
    """We see that for ourselves: however many they are, the relay has refused nobody."""
    people(registry, 20)
    people(registry, 12, address="jörg{}@example.org")
    with Smtpd(extensions=["PIPELINING", "ENHANCEDSTATUSCODES"]) as relay:
        day = pipeline(relay).run(NOW)
    assert (day.numbers, day.troubles) == ({"sent": 20, "failed": 12}, [])


# The pace


def test_rate_is_kept_over_all_connections(registry: Registry, pipeline: MakePipeline) -> None:
    people(registry, 6)
    with Smtpd() as relay:
        assert pipeline(relay, smtp={"connections": 2, "rate": "20/s"}).run(NOW).numbers == {"sent": 6}
    times_of_arrival = sorted(accepted.at for accepted in relay.accepted)
    assert times_of_arrival[-1] - times_of_arrival[0] >= 0.7 * 4 * timedelta(seconds=1 / 20)  # two may leave at once


def test_notice_that_waits_for_its_turn_is_not_marked_and_the_one_before_is_recorded(
    registry: Registry, pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill in a long wait leaves nobody in doubt."""
    people(registry, 2)
    seen: list[dict[str, int]] = []
    take_at_once = RateLimit.take_at_once

    def look(limit: RateLimit) -> bool:
        if not (may_go := take_at_once(limit)):
            seen.append(Counter(state for (state,) in registry.execute("SELECT state FROM token_pipelines.notices")))
        return may_go

    monkeypatch.setattr(RateLimit, "take_at_once", look)
    with Smtpd() as relay:
        assert pipeline(relay, smtp={"connections": 1, "rate": "2/s"}).run(NOW).numbers == {"sent": 2}
    assert {"sent": 1, "claimed": 1} in seen
    # "sending" is seen only where the next one's commands would go behind the dot: before a word of it is said.
    assert all(states in ({"sending": 1, "claimed": 1}, {"sent": 1, "claimed": 1}) for states in seen)


def test_batch_that_got_old_in_waiting_is_read_again(registry: Registry, pipeline: MakePipeline) -> None:
    people(registry, 2)
    [_, (second,)] = registry.execute("SELECT id FROM api_tokens ORDER BY id")

    def slow(stage: str, _argument: str) -> None:
        if stage == "dot":
            registry.change(str(second), revoked=True)
            house.pass_time(READ_AGAIN_AFTER + SECOND)

    with Smtpd(script=slow) as relay:
        house = pipeline(relay, smtp={"connections": 1})
        day = house.run(NOW)
    assert (day.numbers, day.skipped) == ({"sent": 1}, {"revoked": 1})
    assert len(relay.accepted) == 1


def test_email_that_got_old_in_waiting_is_written_again(registry: Registry, pipeline: MakePipeline) -> None:
    people(registry, 2)

    def slow(stage: str, _argument: str) -> None:
        if stage == "dot":
            house.pass_time(WRITTEN_AGAIN_AFTER + SECOND)

    with Smtpd(script=slow) as relay:
        house = pipeline(relay, smtp={"connections": 1})
        assert house.run(NOW).numbers == {"sent": 2}
    dates = [accepted.message["date"].datetime for accepted in relay.accepted]
    assert dates == [NOW, NOW + WRITTEN_AGAIN_AFTER + SECOND]


# One recipient's trouble


def test_recipient_put_off_waits_for_a_later_run_alone(registry: Registry, pipeline: MakePipeline) -> None:
    people = three_people(registry)
    with Smtpd(script=at_stage("rcpt", Action(code=450, text="4.2.2 full"), of="bob")) as relay:
        house = pipeline(relay)
        day = house.run(NOW)
    assert (day.numbers, day.troubles) == ({"sent": 2, "deferred": 1}, [])
    assert house.states()[str(people["bob"])] == "deferred"
    with Smtpd() as relay:
        house = pipeline(relay)
        assert house.run(NOW + HOUR).numbers == {"sent": 1}
        assert recipients(relay) == ["bob@example.org"]
    (entry,) = house.history(recipient_id=str(people["bob"]))
    tries = [(attempt["stage"], attempt["code"]) for attempt in entry["attempts"]]
    assert (tries, entry["attempts"][0]["reply"]) == ([("rcpt", 450), ("dot", 250)], "4.2.2 full")


def test_recipient_put_off_is_tried_again_within_the_run(registry: Registry, pipeline: MakePipeline) -> None:
    three_people(registry)
    with Smtpd(script=times(1, "rcpt", Action(code=451, text="4.7.1 greylisted"))) as relay:
        assert pipeline(relay, delivery={"retry_pauses": ["0s"]}).run(NOW).numbers == {"sent": 3}
    assert recipients(relay) == ["ada@example.org", "bob@example.org", "eve@example.org"]


def test_address_refused_for_good_fails_and_is_suppressed(registry: Registry, pipeline: MakePipeline) -> None:
    people = three_people(registry)
    with Smtpd(script=at_stage("rcpt", Action(code=550, text="5.1.1 no such user"), of="bob")) as relay:
        house = pipeline(relay)
        day = house.run(NOW)
        assert (day.numbers, day.troubles) == ({"sent": 2, "failed": 1}, [])
        again = house.run(NOW + HOUR)
        assert (again.numbers, again.skipped) == ({}, {"refused_address": 1})
        registry.token(people["bob"], expires_at=NOW + 5 * DAY)
        assert house.run(NOW + 2 * HOUR).skipped == {"suppressed": 1}
    assert sum("bob" in command for command in relay.commands) == 1, "the relay is not asked again"
    registry.execute("UPDATE emails SET email = 'robert@example.org' WHERE user_id = %s", people["bob"])
    with Smtpd() as relay:
        assert pipeline(relay).run(NOW + 3 * HOUR).numbers == {"sent": 1}
    (accepted,) = relay.accepted
    assert accepted.recipient == "robert@example.org"
    assert accepted.message["Subject"].startswith("2 of your")


def test_refusal_that_does_not_blame_the_address_suppresses_nobody(registry: Registry, pipeline: MakePipeline) -> None:
    three_people(registry)
    with Smtpd(script=at_stage("dot", Action(code=554, text="5.6.0 not like this"), of="bob")) as relay:
        assert pipeline(relay).run(NOW).numbers == {"sent": 2, "failed": 1}
    assert registry.execute("SELECT 1 FROM token_pipelines.suppressions") == []


def test_too_many_refusals_are_not_believed(registry: Registry, pipeline: MakePipeline) -> None:
    for number in range(12):
        user = registry.user(f"u{number}", email=f"u{number}@example.org")
        registry.token(user, expires_at=IN_TWO_DAYS)
    with Smtpd(script=at_stage("rcpt", Action(code=550, text="5.1.1 no such user"))) as relay:
        house = pipeline(relay)
        day = house.run(NOW)
    assert (day.total("failed"), day.total("deferred") + day.total("waiting")) == (0, 12)
    assert [str(trouble).startswith("The relay refused ") for trouble in day.troubles] == [True]
    assert registry.execute("SELECT 1 FROM token_pipelines.suppressions") == []
    assert set(house.states().values()) <= {"deferred", "planned"}
    with Smtpd() as relay:
        assert pipeline(relay).run(NOW + HOUR).numbers == {"sent": 12}


def test_answer_lost_after_the_dot_is_sent_again_with_the_same_bytes(
    registry: Registry, pipeline: MakePipeline
) -> None:
    registry.token(registry.user("ada", email="ada@example.org", name="Ada"), expires_at=IN_TWO_DAYS, name="ünï")
    with Smtpd(script=times(1, "dot", Action(drop="after"))) as relay:
        house = pipeline(relay)
        first = house.run(NOW)
        assert first.numbers == {"unknown": 1}
        assert [entry["state"] for entry in house.history()] == ["unknown"]
        assert house.run(NOW + 3 * HOUR).numbers == {"sent": 1}
        assert house.run(NOW + 4 * HOUR).numbers == {}
    before, after = relay.accepted
    assert before.message["Message-ID"] == after.message["Message-ID"]
    assert before.data == after.data
    (entry,) = house.history()
    assert [(attempt["stage"], attempt["code"]) for attempt in entry["attempts"]] == [("dot", None), ("dot", 250)]


def test_message_in_doubt_is_sent_at_most_max_attempts_times(registry: Registry, pipeline: MakePipeline) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=IN_TWO_DAYS)
    with Smtpd(script=at_stage("dot", Action(drop="after"))) as relay:
        house = pipeline(relay, delivery={"max_attempts": 3})
        numbers = [house.run(NOW + number * HOUR).numbers for number in range(5)]
    assert numbers == [{"unknown": 1}] * 3 + [{}] * 2
    assert len({accepted.data for accepted in relay.accepted}) == 1
    assert len(relay.accepted) == 3
    assert [entry["state"] for entry in house.history()] == ["unknown"]


def test_message_in_doubt_outlives_a_relay_that_hangs_up_run_after_run(
    registry: Registry, pipeline: MakePipeline
) -> None:
    people(registry, 1)
    with Smtpd(script=times(1, "dot", Action(drop="before"))) as relay:
        assert pipeline(relay).run(NOW).numbers == {"unknown": 1}
    with Smtpd(script=at_stage("data", Action(drop="before"))) as relay:
        house = pipeline(relay)
        assert [house.run(NOW + hours * HOUR).numbers for hours in range(1, 5)] == [{"unknown": 1}] * 4
    with Smtpd() as relay:
        assert pipeline(relay).run(NOW + 5 * HOUR).numbers == {"sent": 1}


def test_message_in_doubt_refused_at_the_second_try_stays_in_doubt(registry: Registry, pipeline: MakePipeline) -> None:
    """The first copy may have been delivered: it never becomes free to be planned again."""
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=IN_TWO_DAYS)
    with Smtpd(script=times(1, "dot", Action(drop="after"))) as relay:
        pipeline(relay).run(NOW)
    with Smtpd(script=at_stage("rcpt", Action(code=550, text="5.1.1 no such user"))) as relay:
        house = pipeline(relay)
        assert house.run(NOW + HOUR).numbers == {"unknown": 1}
    assert [entry["state"] for entry in house.history()] == ["unknown"]


def test_message_in_doubt_waits_for_a_person_under_hold(registry: Registry, pipeline: MakePipeline) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=IN_TWO_DAYS)
    with Smtpd(script=times(1, "dot", Action(drop="after"))) as relay:
        house = pipeline(relay, delivery={"on_unknown": "hold"})
        assert [house.run(NOW + number * HOUR).numbers for number in range(3)] == [{"unknown": 1}, {}, {}]
    assert len(relay.accepted) == 1


def test_notice_that_another_run_has_taken_over_is_not_sent(registry: Registry, pipeline: MakePipeline) -> None:
    """Held for dead while it was only slow, a run must not send what is no longer its own."""
    people(registry, 2)

    def slow(stage: str, _argument: str) -> None:
        if stage == "mail":
            registry.execute("UPDATE token_pipelines.notices SET claimed_by = 'another run' WHERE state = 'claimed'")

    with Smtpd(script=slow) as relay:
        house = pipeline(relay, smtp={"connections": 1})
        assert house.run(NOW, tiers=["day"]).numbers == {"sent": 1}
    assert len(relay.accepted) == 1
    states = registry.execute("SELECT state, claimed_by FROM token_pipelines.notices ORDER BY state")
    assert states == [("claimed", "another run"), ("sent", None)]


def test_many_recipients_over_many_connections_get_one_email_each(registry: Registry, pipeline: MakePipeline) -> None:
    registry.execute("INSERT INTO users (gh_id, gh_login) SELECT n, 'u' || n FROM generate_series(1, 300) AS n")
    registry.execute(
        "INSERT INTO emails (user_id, email, verified) SELECT id, gh_login || '@example.org', true FROM users"
    )
    registry.execute(
        "INSERT INTO api_tokens (user_id, name, created_at, expired_at) SELECT id, 'ci', %s, %s FROM users",
        NOW - YEAR,
        IN_TWO_DAYS,
    )
    with Smtpd() as relay:
        house = pipeline(relay, smtp={"connections": 4, "recycle_after": 20})
        assert house.run(NOW).numbers == {"sent": 300}
        assert house.run(NOW).numbers == {}
    assert Counter(recipients(relay)) == {f"u{number}@example.org": 1 for number in range(1, 301)}
    assert relay.connections >= 15


# Careful starts


def test_redirect_goes_to_the_operator_and_does_not_use_up_the_live_notice(
    registry: Registry, pipeline: MakePipeline
) -> None:
    three_people(registry)
    redirect = {"mode": "redirect", "redirect_to": "ops@example.org"}
    links = {"manage": "https://example.org/tokens", "unsubscribe": "https://example.org/stop/{recipient_id}"}
    with Smtpd() as relay:
        rehearsal = pipeline(relay, delivery=redirect, email={"links": links})
        assert [rehearsal.run(NOW).sent, rehearsal.run(NOW + HOUR).sent] == [3, 0]
        assert recipients(relay) == ["ops@example.org"] * 3
        assert {accepted.message["To"] for accepted in relay.accepted} == {"ops@example.org"}
        assert {accepted.message["List-Unsubscribe"] for accepted in relay.accepted} == {None}
        assert not [accepted for accepted in relay.accepted if "/stop/" in text(accepted) + html(accepted)]
    with Smtpd() as relay:
        live = pipeline(relay)
        assert live.run(NOW + 2 * HOUR).sent == 3
        assert recipients(relay) == ["ada@example.org", "bob@example.org", "eve@example.org"]
    assert Counter(entry["mode"] for entry in live.history()) == {"redirect": 3, "live": 3}


def test_dry_run_says_what_would_be_sent_and_writes_nothing(registry: Registry, pipeline: MakePipeline) -> None:
    three_people(registry)
    with Smtpd() as relay:
        house = pipeline(relay, delivery={"mode": "dry_run"})
        assert [house.run(NOW).numbers, house.run(NOW).numbers] == [{"waiting": 3}] * 2
        assert relay.connections == 0
        tables = ("notices", "notice_tokens", "attempts", "suppressions", "fuse_trips", "marks")
        rows = {table: registry.execute(f"SELECT 1 FROM token_pipelines.{table}") for table in tables}  # noqa: S608
        assert rows == {table: [] for table in tables}
        assert pipeline(relay, delivery={"mode": "live"}).run(NOW).sent == 3
        assert pipeline(relay, delivery={"mode": "dry_run"}).run(NOW).numbers == {}


def test_rollout_widens_without_losing_or_repeating_anybody(registry: Registry, pipeline: MakePipeline) -> None:
    people = three_people(registry)
    with Smtpd() as relay:
        few = pipeline(relay, delivery={"only_recipients": [people["ada"]]}).run(NOW)
        assert (few.numbers, few.skipped) == ({"sent": 1}, {"not_in_rollout": 2})
        assert recipients(relay) == ["ada@example.org"]
        none = pipeline(relay, delivery={"only_recipients": [], "rollout_percent": 0}).run(NOW)
        assert (none.numbers, none.skipped) == ({}, {"not_in_rollout": 2})
        assert pipeline(relay, delivery={"rollout_percent": 100}).run(NOW).numbers == {"sent": 2}
    assert recipients(relay) == ["ada@example.org", "bob@example.org", "eve@example.org"]


def test_fuse_holds_this_day_and_later_ones_until_a_person_approves(registry: Registry, pipeline: MakePipeline) -> None:
    three_people(registry)
    with Smtpd() as relay:
        house = pipeline(relay, delivery={"max_notices": 2})
        for now in (NOW, NOW + DAY):
            with pytest.raises(FuseTripped, match=r"3 notices were new on 2026-11-20, over delivery\.max_notices of 2"):
                house.run(now)
        assert house.history() == []
        assert house.run(NOW + DAY, approve=True).sent == 3
        assert house.run(NOW + DAY).numbers == {}


def test_fuse_at_its_limit_holds_nothing(registry: Registry, pipeline: MakePipeline) -> None:
    three_people(registry)
    with Smtpd() as relay:
        assert pipeline(relay, delivery={"max_notices": 3}).run(NOW).sent == 3


def test_adoption_counts_what_came_due_before_an_instant_as_told(registry: Registry, pipeline: MakePipeline) -> None:
    ada = registry.user("ada", email="ada@example.org")
    registry.token(ada, expires_at=NOW + 6 * DAY, name="was in its week already")
    with Smtpd() as relay:
        house = pipeline(relay)
        parts = house.parts(NOW)
        with closing(parts.ledger):
            parts.ledger.migrate()
            parts.ledger.mark_notified(NOW, mode=Mode.LIVE, at=NOW)
        day = house.run(NOW)
        assert (day.numbers, day.examination.reasons) == ({}, {"already_notified": 1})
        assert house.run(NOW + 4 * DAY).sent == 1, "the next step is told"


def test_tier_that_is_renamed_or_added_repeats_nothing(registry: Registry, pipeline: MakePipeline) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 6 * DAY)
    tiers: Sequence[dict[str, str]] = [{"name": "soon", "before": "7d"}, {"name": "fortnight", "before": "14d"}]
    with Smtpd() as relay:
        assert pipeline(relay).run(NOW).sent == 1
        assert pipeline(relay, tiers=tiers).run(NOW + HOUR).numbers == {}
        assert pipeline(relay, tiers=[*tiers, {"name": "five", "before": "5d"}]).run(NOW + HOUR).sent == 1


def test_what_waits_for_a_tier_that_is_dropped_is_closed(
    registry: Registry, pipeline: MakePipeline, nobody: int
) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 6 * DAY)
    pipeline(nobody).run(NOW)
    with Smtpd() as relay:
        house = pipeline(relay, tiers=[{"name": "soon", "before": "2d"}])
        assert house.run(NOW + HOUR).numbers == {}
    assert [(entry["tier"], entry["state"]) for entry in house.history()] == [("week", "withdrawn")]
