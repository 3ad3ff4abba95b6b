"""Whole days in which the relay refuses many: whose trouble that is, is decided by what it accepts."""

import time
from collections import Counter
from datetime import timedelta

import pytest
from support.pipeline import DAY, NOW, MakePipeline, Registry
from support.scenarios import HOUR, at_stage, people, somebody_elsewhere
from support.smtpd import Action, Script, Smtpd

NO_SUCH_USER = Action(code=550, text="5.1.1 no such user")
NO_PAUSES: dict[str, list[str]] = {"retry_pauses": []}

ABOUT_THE_RELAY = pytest.mark.parametrize(
    "action",
    [
        NO_SUCH_USER,
        Action(code=550, text="relay not permitted"),
        Action(code=550, text="Sender verify failed"),
        Action(code=504, text="5.5.2 need fully-qualified hostname"),
        Action(code=530, text="Authentication required"),
    ],
    ids=lambda action: action.text,
)


def suppressed(registry: Registry) -> int:
    return len(registry.execute("SELECT 1 FROM token_pipelines.suppressions"))


def spread_people(registry: Registry, count: int, *, address: str = "person{}@d{}.example") -> list[str]:
    """People over seven domains."""
    found = []
    for number in range(count):
        found += people(registry, 1, address=address.format(number, number % 7))
    return found


@ABOUT_THE_RELAY
def test_relay_that_refuses_everybody_is_not_believed_and_after_its_repair_all_are_told(
    registry: Registry, make_pipeline: MakePipeline, action: Action
) -> None:
    people(registry, 6)
    with Smtpd(script=at_stage("rcpt", action)) as relay:
        house = make_pipeline(relay)
        for number in range(4):  # however many days that lasts
            day = house.run(NOW + number * timedelta(hours=7))
            assert day.numbers == {"deferred": 6}
            assert [action.text in str(trouble) for trouble in day.troubles] == [True]
    assert suppressed(registry) == 0
    with Smtpd() as relay:
        assert make_pipeline(relay).run(NOW + DAY + HOUR).numbers == {"sent": 6}


@ABOUT_THE_RELAY
def test_relay_that_refuses_everybody_is_asked_a_few_times(
    registry: Registry, make_pipeline: MakePipeline, action: Action
) -> None:
    spread_people(registry, 60)
    with Smtpd(script=at_stage("rcpt", action)) as relay:
        day = make_pipeline(relay, smtp={"connections": 4}).run(NOW)
        asked = sum(command.startswith("RCPT") for command in relay.commands)
    deferred = day.numbers["deferred"]
    assert 20 <= deferred <= asked <= 20 + 4  # some were asked about without an answer when it stopped
    assert day.numbers == {"deferred": deferred, "waiting": 60 - deferred}
    (trouble,) = day.troubles
    assert str(trouble).endswith(" messages was accepted.")
    assert suppressed(registry) == 0


def test_nobody_waits_twice_behind_the_same_person(registry: Registry, make_pipeline: MakePipeline) -> None:
    """Each run tries those first who were not tried yet."""
    spread_people(registry, 60)
    with Smtpd(script=at_stage("rcpt", Action(code=550, text="5.7.1 listed"))) as relay:
        house = make_pipeline(relay, smtp={"connections": 1})
        for number in range(3):
            house.run(NOW + number * HOUR)
        asked = Counter(command for command in relay.commands if command.startswith("RCPT"))
    assert len(asked) == 60
    assert set(asked.values()) == {1}


@pytest.mark.parametrize("connections", [1, 4])
def test_dead_addresses_of_one_domain_keep_nobody_else_waiting(
    registry: Registry, make_pipeline: MakePipeline, connections: int
) -> None:
    spread_people(registry, 50)
    people(registry, 11, address="old{}@gone.example")
    with Smtpd(script=at_stage("rcpt", NO_SUCH_USER, of="@gone.example")) as relay:
        day = make_pipeline(relay, smtp={"connections": connections}).run(NOW)
    assert (day.numbers, day.troubles) == ({"sent": 50, "failed": 11}, [])
    assert suppressed(registry) == 11


@pytest.mark.parametrize("connections", [1, 4])
def test_more_dead_than_living_are_not_believed_and_the_living_are_told(
    registry: Registry, make_pipeline: MakePipeline, connections: int
) -> None:
    spread_people(registry, 12)
    spread_people(registry, 18, address="old{}@d{}.example")
    with Smtpd(script=at_stage("rcpt", NO_SUCH_USER, of="old")) as relay:
        day = make_pipeline(relay, smtp={"connections": connections}).run(NOW)
    assert day.numbers == {"sent": 12, "deferred": 18}
    assert suppressed(registry) == 0


def test_people_refused_by_policy_keep_nobody_else_waiting(registry: Registry, make_pipeline: MakePipeline) -> None:
    spread_people(registry, 52)
    spread_people(registry, 8, address="strict{}@d{}.example")
    refusal = Action(code=550, text="5.7.133 sender not authenticated for this mailbox")
    with Smtpd(script=at_stage("rcpt", refusal, of="strict")) as relay:
        day = make_pipeline(relay, smtp={"connections": 1}, delivery=NO_PAUSES).run(NOW)
    assert day.numbers == {"sent": 52, "deferred": 8}
    assert suppressed(registry) == 0


def test_refusal_repeated_on_three_days_is_believed_once_somebody_is_accepted(
    registry: Registry, make_pipeline: MakePipeline
) -> None:
    """Alone in its tier, a refusal has no other evidence."""
    user = registry.user("bob", email="bob@example.org")
    registry.token(user, expires_at=NOW + 6 * DAY)
    with Smtpd(script=at_stage("rcpt", NO_SUCH_USER, of="bob")) as relay:
        house = make_pipeline(relay)
        for number in range(3):
            assert house.run(NOW + number * DAY).numbers == {"deferred": 1}
        assert suppressed(registry) == 0, "nobody was accepted"
        registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 20 * DAY)
        assert house.run(NOW + 3 * DAY).total("failed") in {0, 1}
        assert house.run(NOW + 3 * DAY + HOUR).total("failed") in {0, 1}
        assert suppressed(registry) == 1


def test_evidence_must_come_from_another_domain_too(registry: Registry, make_pipeline: MakePipeline) -> None:
    """Some relays deliver to a part of their own domain, and not elsewhere."""
    people(registry, 5)
    somebody_elsewhere(registry)
    dead, policy = at_stage("rcpt", NO_SUCH_USER, of="person0@example.org"), Action(code=550, text="5.7.1 not outside")
    elsewhere = at_stage("rcpt", policy, of="@example.net")
    with Smtpd(script=lambda stage, argument: dead(stage, argument) or elsewhere(stage, argument)) as relay:
        assert make_pipeline(relay).run(NOW).numbers == {"sent": 4, "deferred": 2}
    assert suppressed(registry) == 0
    with Smtpd(script=dead) as relay:
        assert make_pipeline(relay).run(NOW + HOUR).numbers == {"sent": 1, "failed": 1}
    assert suppressed(registry) == 1


# A relay that asks for less


def throttled(per_second: int, *, stage: str = "dot") -> Script:
    """Takes so many messages each second, and puts off the others."""
    taken: Counter[int] = Counter()

    def script(reached: str, _argument: str) -> Action | None:
        if reached != stage:
            return None
        second = int(time.monotonic())
        taken[second] += 1
        if taken[second] <= per_second:
            return None
        return Action(code=454, text="4.7.0 Throttling failure: Maximum sending rate exceeded")

    return script


@pytest.mark.parametrize("stage", ["rcpt", "dot"])
def test_relay_that_limits_the_rate_gets_everything_more_slowly(
    registry: Registry, make_pipeline: MakePipeline, stage: str
) -> None:
    spread_people(registry, 60)
    with Smtpd(script=throttled(14, stage=stage)) as relay:
        day = make_pipeline(relay, smtp={"connections": 8}, delivery={"retry_pauses": ["1s"]}).run(NOW)
    assert (day.numbers, day.troubles) == ({"sent": 60}, [])
    (rate,) = {report.rate for report in day.tiers.values() if report.sent}
    assert rate is not None
    assert 0 < rate < 50


def test_deadline_ends_the_repetition(registry: Registry, make_pipeline: MakePipeline) -> None:
    people(registry, 3)
    action = Action(code=452, text="4.2.2 full")
    with Smtpd(script=at_stage("rcpt", action, of="person0@")) as relay:
        house = make_pipeline(relay, delivery={"retry_pauses": ["1h"], "deadline": "1m"})
        assert house.run(NOW).numbers == {"sent": 2, "deferred": 1}
