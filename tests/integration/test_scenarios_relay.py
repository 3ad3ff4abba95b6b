"""Whole days with a relay in trouble, or with a limit on the pace."""

from collections import Counter
from datetime import timedelta

import pytest
from support.pipeline import NOW, MakePipeline, Registry
from support.scenarios import HOUR, SECOND, at_stage, people, three_people
from support.smtpd import Action, Script, Smtpd

from token_pipelines.delivery.emails import READ_AGAIN_AFTER, WRITTEN_AGAIN_AFTER
from token_pipelines.smtp.rate import RateLimit

# The relay in trouble


def test_relay_down_sends_nothing_marks_nothing_and_the_next_run_sends(
    registry: Registry, make_pipeline: MakePipeline, closed_port: int
) -> None:
    three_people(registry)
    house = make_pipeline(closed_port)
    day = house.run(NOW)
    assert day.numbers == {"waiting": 3}
    assert [str(trouble) for trouble in day.troubles] == [
        f"The relay 127.0.0.1:{closed_port} refuses connections; check smtp.port, and that the relay runs."
    ]
    assert [(entry["state"], entry["attempts"]) for entry in house.history()] == [("planned", [])] * 3
    with Smtpd() as relay:
        assert make_pipeline(relay).run(NOW + HOUR).numbers == {"sent": 3}
    assert len(house.history()) == 3


@pytest.mark.parametrize(
    ("stage", "action", "said"),
    [
        ("connect", Action(code=554, text="5.3.2 closed"), "greeted us with 554 5.3.2 closed"),
        ("mail", Action(drop="before"), "connection lost at MAIL FROM"),
    ],
)
def test_trouble_of_the_relays_stops_the_tier_and_blames_nobody(
    registry: Registry, make_pipeline: MakePipeline, stage: str, action: Action, said: str
) -> None:
    three_people(registry)
    with Smtpd(script=at_stage(stage, action)) as relay:
        house = make_pipeline(relay)
        day = house.run(NOW)
    assert day.numbers == {"waiting": 3}
    (trouble,) = day.troubles
    assert said in str(trouble)
    assert set(house.states().values()) == {"planned"}
    assert registry.execute("SELECT 1 FROM token_pipelines.suppressions") == []
    with Smtpd() as relay:
        assert make_pipeline(relay).run(NOW + HOUR).numbers == {"sent": 3}


TROUBLES_AT_THE_RECIPIENT = [
    ("rcpt", Action(code=550, text="5.7.1 listed"), "answered 550 5.7.1 listed at RCPT TO"),
    ("dot", Action(code=554, text="5.7.9 DMARC"), "answered 554 5.7.9 DMARC at the end of the message"),
    ("rcpt", Action(code=421, text="4.3.2 going down"), "answered 421 4.3.2 going down at RCPT TO"),
    ("data", Action(drop="before"), "connection lost at DATA"),
]
"""Trouble that may be one recipient's or everybody's: what the relay does, and what an operator reads of it."""

AT_THE_RECIPIENT = pytest.mark.parametrize(("stage", "action", "said"), TROUBLES_AT_THE_RECIPIENT)


@pytest.mark.parametrize(
    ("stage", "action", "said"),
    [
        ("mail", Action(code=550, text="5.1.8 bad sender"), "answered 550 5.1.8 bad sender at MAIL FROM"),
        *TROUBLES_AT_THE_RECIPIENT,
    ],
)
def test_trouble_of_all_is_the_relays_and_fails_the_tier(
    registry: Registry, make_pipeline: MakePipeline, stage: str, action: Action, said: str
) -> None:
    people(registry, 5)
    with Smtpd(script=at_stage(stage, action)) as relay:
        house = make_pipeline(relay, smtp={"connections": 1}, delivery={"retry_pauses": []})
        day = house.run(NOW)
    assert day.numbers == {"deferred": 5}
    (trouble,) = day.troubles
    assert said in str(trouble)
    assert registry.execute("SELECT 1 FROM token_pipelines.suppressions") == []
    with Smtpd() as relay:
        assert make_pipeline(relay).run(NOW + HOUR).numbers == {"sent": 5}


@AT_THE_RECIPIENT
def test_trouble_of_one_recipient_is_theirs_alone(
    registry: Registry, make_pipeline: MakePipeline, stage: str, action: Action, said: str
) -> None:
    """A mailbox that takes no mail from outside answers 5.7.x for ever; nobody else must wait for its sake."""
    poisoned, *others = people(registry, 4)
    last: list[str] = []

    def script(reached: str, argument: str) -> Action | None:
        if reached == "rcpt":
            last.append(argument)
        return action if reached == stage and "person0@" in last[-1] else None

    with Smtpd(script=script) as relay:
        house = make_pipeline(relay, smtp={"connections": 1}, delivery={"retry_pauses": []})
        day = house.run(NOW)
        assert (day.numbers, day.troubles) == ({"sent": 3, "deferred": 1}, [])
        (entry,) = house.history(recipient_id=poisoned)
        (attempt,) = entry["attempts"]
        assert (entry["state"], attempt["stage"]) == ("deferred", stage)
        assert (attempt["reply"] or "") in said
    assert house.states() == {poisoned: "deferred"} | dict.fromkeys(others, "sent")
    with Smtpd() as relay:
        assert make_pipeline(relay).run(NOW + HOUR).numbers == {"sent": 1}


def test_trouble_of_all_that_was_tried_fails_the_tier_even_if_that_was_one(
    registry: Registry, make_pipeline: MakePipeline
) -> None:
    people(registry, 1)
    with Smtpd(script=at_stage("rcpt", Action(code=550, text="5.7.1 listed"))) as relay:
        day = make_pipeline(relay).run(NOW)
    assert day.numbers == {"deferred": 1}
    assert ["answered 550 5.7.1 listed at RCPT TO" in str(trouble) for trouble in day.troubles] == [True]


def test_login_refused_stops_the_tier_at_once(
    registry: Registry, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pause would not make the password right, so none is taken: these would last for an hour."""
    three_people(registry)
    monkeypatch.setenv("TOKEN_PIPELINES__SMTP__PASSWORD", "yesterday's")
    changes = {"username": "mailer", "connections": 1, "reconnect_pauses": ["1h", "1h"]}
    with Smtpd(credentials={"mailer": "today's"}) as relay:
        house = make_pipeline(relay, smtp=changes)
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
        assert make_pipeline(relay, smtp=changes).run(NOW + HOUR).numbers == {"sent": 3}


def test_relay_that_fails_half_way_is_counted_truly(registry: Registry, make_pipeline: MakePipeline) -> None:
    three_people(registry)
    served = iter(range(100))
    script: Script = lambda stage, _: (  # noqa: E731 -- a script is a function of two arguments
        Action(code=421, text="4.3.2 enough") if stage == "rcpt" and next(served) >= 1 else None
    )
    with Smtpd(script=script) as relay:
        house = make_pipeline(relay, smtp={"connections": 1})
        day = house.run(NOW)
    assert day.numbers == {"sent": 1, "deferred": 2}
    assert ["4.3.2 enough" in str(trouble) for trouble in day.troubles] == [True]
    assert len(relay.accepted) == 1
    assert Counter(house.states().values()) == {"sent": 1, "deferred": 2}
    with Smtpd() as relay:
        assert make_pipeline(relay).run(NOW + HOUR).numbers == {"sent": 2}


def test_relay_that_allows_fewer_connections_gets_everything_over_these(
    registry: Registry, make_pipeline: MakePipeline
) -> None:
    people(registry, 30)
    connections = iter(range(100))
    script: Script = lambda stage, _: (  # noqa: E731 -- as above
        Action(code=421, text="4.7.0 too many connections") if stage == "connect" and next(connections) >= 2 else None
    )
    with Smtpd(script=script) as relay:
        day = make_pipeline(relay, smtp={"connections": 4}).run(NOW)
    assert (day.numbers, day.troubles) == ({"sent": 30}, [])
    assert len(relay.accepted) == 30


def test_relay_without_smtputf8_fails_those_who_need_it_and_no_others(
    registry: Registry, make_pipeline: MakePipeline
) -> None:
    """We see that for ourselves: however many they are, the relay has refused nobody."""
    people(registry, 20)
    people(registry, 12, address="jörg{}@example.org")
    with Smtpd(extensions=["PIPELINING", "ENHANCEDSTATUSCODES"]) as relay:
        day = make_pipeline(relay).run(NOW)
    assert (day.numbers, day.troubles) == ({"sent": 20, "failed": 12}, [])


# The pace


def test_rate_is_kept_over_all_connections(registry: Registry, make_pipeline: MakePipeline) -> None:
    people(registry, 6)
    with Smtpd() as relay:
        assert make_pipeline(relay, smtp={"connections": 2, "rate": "20/s"}).run(NOW).numbers == {"sent": 6}
    times_of_arrival = sorted(accepted.at for accepted in relay.accepted)
    assert times_of_arrival[-1] - times_of_arrival[0] >= 0.7 * 4 * timedelta(seconds=1 / 20)  # two may leave at once


def test_notice_that_waits_for_its_turn_is_not_marked_and_the_one_before_is_recorded(
    registry: Registry, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
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
        assert make_pipeline(relay, smtp={"connections": 1, "rate": "2/s"}).run(NOW).numbers == {"sent": 2}
    assert {"sent": 1, "claimed": 1} in seen
    # "sending" is seen only where the next one's commands would go behind the dot: before a word of it is said.
    assert all(states in ({"sending": 1, "claimed": 1}, {"sent": 1, "claimed": 1}) for states in seen)


def test_batch_that_got_old_in_waiting_is_read_again(registry: Registry, make_pipeline: MakePipeline) -> None:
    people(registry, 2)
    tokens = dict(
        registry.execute("SELECT login.gh_login, t.id FROM api_tokens t JOIN users login ON login.id = user_id")
    )

    def slow(stage: str, argument: str) -> None:
        if stage == "dot":
            other = "person1" if "person0" in argument else "person0"
            registry.change(str(tokens[other]), revoked=True)
            house.pass_time(READ_AGAIN_AFTER + SECOND)

    with Smtpd(script=slow) as relay:
        house = make_pipeline(relay, smtp={"connections": 1})
        day = house.run(NOW)
    assert (day.numbers, day.skipped) == ({"sent": 1}, {"revoked": 1})
    assert len(relay.accepted) == 1


def test_email_that_got_old_in_waiting_is_written_again(registry: Registry, make_pipeline: MakePipeline) -> None:
    people(registry, 2)

    def slow(stage: str, _argument: str) -> None:
        if stage == "dot":
            house.pass_time(WRITTEN_AGAIN_AFTER + SECOND)

    with Smtpd(script=slow) as relay:
        house = make_pipeline(relay, smtp={"connections": 1})
        assert house.run(NOW).numbers == {"sent": 2}
    dates = [accepted.message["date"].datetime for accepted in relay.accepted]
    assert dates == [NOW, NOW + WRITTEN_AGAIN_AFTER + SECOND]
