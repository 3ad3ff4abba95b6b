"""Whole days with one recipient in trouble: put off, refused, in doubt."""

from collections import Counter

from support.pipeline import DAY, NOW, YEAR, MakePipeline, Registry
from support.scenarios import HOUR, IN_TWO_DAYS, at_stage, people, recipients, three_people
from support.smtpd import Action, Smtpd, times


def test_recipient_put_off_waits_for_a_later_run_alone(registry: Registry, make_pipeline: MakePipeline) -> None:
    people = three_people(registry)
    with Smtpd(script=at_stage("rcpt", Action(code=450, text="4.2.2 full"), of="bob")) as relay:
        house = make_pipeline(relay)
        day = house.run(NOW)
    assert (day.numbers, day.troubles) == ({"sent": 2, "deferred": 1}, [])
    assert house.states()[str(people["bob"])] == "deferred"
    with Smtpd() as relay:
        house = make_pipeline(relay)
        assert house.run(NOW + HOUR).numbers == {"sent": 1}
        assert recipients(relay) == ["bob@example.org"]
    (entry,) = house.history(recipient_id=str(people["bob"]))
    tries = [(attempt["stage"], attempt["code"]) for attempt in entry["attempts"]]
    assert (tries, entry["attempts"][0]["reply"]) == ([("rcpt", 450), ("dot", 250)], "4.2.2 full")


def test_recipient_put_off_is_tried_again_within_the_run(registry: Registry, make_pipeline: MakePipeline) -> None:
    three_people(registry)
    with Smtpd(script=times(1, "rcpt", Action(code=451, text="4.7.1 greylisted"))) as relay:
        assert make_pipeline(relay, delivery={"retry_pauses": ["0s"]}).run(NOW).numbers == {"sent": 3}
    assert recipients(relay) == ["ada@example.org", "bob@example.org", "eve@example.org"]


def test_address_refused_for_good_fails_and_is_suppressed(registry: Registry, make_pipeline: MakePipeline) -> None:
    people = three_people(registry)
    with Smtpd(script=at_stage("rcpt", Action(code=550, text="5.1.1 no such user"), of="bob")) as relay:
        house = make_pipeline(relay)
        day = house.run(NOW)
        assert (day.numbers, day.troubles) == ({"sent": 2, "failed": 1}, [])
        again = house.run(NOW + HOUR)
        assert (again.numbers, again.skipped) == ({}, {"refused_address": 1})
        registry.token(people["bob"], expires_at=NOW + 5 * DAY)
        assert house.run(NOW + 2 * HOUR).skipped == {"suppressed": 1}
    assert sum("bob" in command for command in relay.commands) == 1, "the relay is not asked again"
    registry.execute("UPDATE emails SET email = 'robert@example.org' WHERE user_id = %s", people["bob"])
    with Smtpd() as relay:
        assert make_pipeline(relay).run(NOW + 3 * HOUR).numbers == {"sent": 1}
    (accepted,) = relay.accepted
    assert accepted.recipient == "robert@example.org"
    assert accepted.message["Subject"].startswith("2 of your")


def test_refusal_that_does_not_blame_the_address_suppresses_nobody(
    registry: Registry, make_pipeline: MakePipeline
) -> None:
    three_people(registry)
    with Smtpd(script=at_stage("dot", Action(code=554, text="5.6.0 not like this"), of="bob")) as relay:
        assert make_pipeline(relay).run(NOW).numbers == {"sent": 2, "failed": 1}
    assert registry.execute("SELECT 1 FROM token_pipelines.suppressions") == []


def test_answer_lost_after_the_dot_is_sent_again_with_the_same_bytes(
    registry: Registry, make_pipeline: MakePipeline
) -> None:
    registry.token(registry.user("ada", email="ada@example.org", name="Ada"), expires_at=IN_TWO_DAYS, name="ünï")
    with Smtpd(script=times(1, "dot", Action(drop="after"))) as relay:
        house = make_pipeline(relay)
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


def test_message_in_doubt_is_sent_at_most_max_attempts_times(registry: Registry, make_pipeline: MakePipeline) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=IN_TWO_DAYS)
    with Smtpd(script=at_stage("dot", Action(drop="after"))) as relay:
        house = make_pipeline(relay, delivery={"max_attempts": 3})
        numbers = [house.run(NOW + number * HOUR).numbers for number in range(5)]
    assert numbers == [{"unknown": 1}] * 3 + [{}] * 2
    assert len({accepted.data for accepted in relay.accepted}) == 1
    assert len(relay.accepted) == 3
    assert [entry["state"] for entry in house.history()] == ["unknown"]


def test_message_in_doubt_outlives_a_relay_that_hangs_up_run_after_run(
    registry: Registry, make_pipeline: MakePipeline
) -> None:
    people(registry, 1)
    with Smtpd(script=times(1, "dot", Action(drop="before"))) as relay:
        assert make_pipeline(relay).run(NOW).numbers == {"unknown": 1}
    with Smtpd(script=at_stage("data", Action(drop="before"))) as relay:
        house = make_pipeline(relay)
        assert [house.run(NOW + hours * HOUR).numbers for hours in range(1, 5)] == [{"unknown": 1}] * 4
    with Smtpd() as relay:
        assert make_pipeline(relay).run(NOW + 5 * HOUR).numbers == {"sent": 1}


def test_message_in_doubt_refused_at_the_second_try_stays_in_doubt(
    registry: Registry, make_pipeline: MakePipeline
) -> None:
    """The first copy may have been delivered: it never becomes free to be planned again."""
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=IN_TWO_DAYS)
    with Smtpd(script=times(1, "dot", Action(drop="after"))) as relay:
        make_pipeline(relay).run(NOW)
    with Smtpd(script=at_stage("rcpt", Action(code=550, text="5.1.1 no such user"))) as relay:
        house = make_pipeline(relay)
        assert house.run(NOW + HOUR).numbers == {"unknown": 1}
    assert [entry["state"] for entry in house.history()] == ["unknown"]


def test_message_in_doubt_waits_for_a_person_under_hold(registry: Registry, make_pipeline: MakePipeline) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=IN_TWO_DAYS)
    with Smtpd(script=times(1, "dot", Action(drop="after"))) as relay:
        house = make_pipeline(relay, delivery={"on_unknown": "hold"})
        assert [house.run(NOW + number * HOUR).numbers for number in range(3)] == [{"unknown": 1}, {}, {}]
    assert len(relay.accepted) == 1


def test_notice_that_another_run_has_taken_over_is_not_sent(registry: Registry, make_pipeline: MakePipeline) -> None:
    """Presumed dead while it was only slow, a run must not send what is no longer its own."""
    people(registry, 2)

    def slow(stage: str, _argument: str) -> None:
        if stage == "dot":
            registry.execute("UPDATE token_pipelines.notices SET claimed_by = 'another run' WHERE state = 'claimed'")

    with Smtpd(script=slow) as relay:
        house = make_pipeline(relay, smtp={"connections": 1})
        assert house.run(NOW, tiers=["day"]).numbers == {"sent": 1}
    assert len(relay.accepted) == 1
    states = registry.execute("SELECT state, claimed_by FROM token_pipelines.notices ORDER BY state")
    assert states == [("claimed", "another run"), ("sent", None)]


def test_many_recipients_over_many_connections_get_one_email_each(
    registry: Registry, make_pipeline: MakePipeline
) -> None:
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
        house = make_pipeline(relay, smtp={"connections": 4, "recycle_after": 20})
        assert house.run(NOW).numbers == {"sent": 300}
        assert house.run(NOW).numbers == {}
    assert Counter(recipients(relay)) == {f"u{number}@example.org": 1 for number in range(1, 301)}
    assert relay.connections >= 15
