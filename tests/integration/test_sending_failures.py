"""What the sending loop does when something fails in its middle: nothing is lost, nothing is sent twice."""

import os
import signal
import threading
import time
from collections import Counter
from typing import Any

import pytest
from support.pipeline import NOW, MakePipeline, Registry
from support.scenarios import HOUR, at_stage, people
from support.smtpd import Action, Script, Smtpd, times

from token_pipelines.channel import Channel
from token_pipelines.delivery.connections import Connections
from token_pipelines.delivery.outbox import Outbox
from token_pipelines.envelope import Envelope
from token_pipelines.errors import LedgerError, SourceError, TokenPipelinesError
from token_pipelines.ledger.settlement import Settlement
from token_pipelines.smtp.lane import Lane
from token_pipelines.source.source import Source

ONE = {"connections": 1}
BRIEF = {"connections": 1, "command_timeout": 0.3, "dot_timeout": 0.3}


def states(registry: Registry) -> Counter[str]:
    return Counter(state for (state,) in registry.execute("SELECT state FROM token_pipelines.notices"))


def attempts(registry: Registry) -> list[tuple[Any, ...]]:
    query = "SELECT state, stage, code, reply FROM token_pipelines.attempts ORDER BY attempt_id"
    return registry.execute(query)


def test_notice_is_marked_after_the_go_ahead(registry: Registry, make_pipeline: MakePipeline) -> None:
    """What is refused before that never was: a kill in between leaves no doubt."""
    people(registry, 1)
    seen: dict[str, Counter[str]] = {}

    def look(stage: str, _argument: str) -> None:
        if stage in {"mail", "rcpt", "data", "dot"}:
            seen[stage] = states(registry)

    with Smtpd(script=look) as relay:
        assert make_pipeline(relay).run(NOW).numbers == {"sent": 1}
    assert seen == {stage: {"claimed": 1} for stage in ("mail", "rcpt", "data")} | {"dot": {"sending": 1}}


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data"])
@pytest.mark.parametrize(
    "action",
    [
        Action(drop="before"),
        Action(drop="after"),
        Action(code=421, text="4.3.2 closing"),
        Action(code=421, text="4.3.2 closing", drop="answered"),
        Action(code=25, text="what"),
        Action(stall=1.5),
        Action(drip=0.1),
        Action(endless=True),
    ],
    ids=["drop", "drop-after", "421", "421-drop", "senseless", "stall", "drip", "endless"],
)
def test_message_lost_before_its_mark_is_tried_on_another_connection(
    registry: Registry, make_pipeline: MakePipeline, stage: str, action: Action
) -> None:
    people(registry, 2)
    with Smtpd(script=times(1, stage, action)) as relay:
        day = make_pipeline(relay, smtp=BRIEF).run(NOW)
    assert (day.numbers, day.troubles) == ({"sent": 2}, [])
    assert (len(relay.accepted), relay.connections) == (2, 2)
    assert [attempt[0] for attempt in attempts(registry)] == ["sent", "sent"]


@pytest.mark.parametrize("pauses", [[], ["0s"]])
def test_message_lost_with_its_text_half_written_is_put_off(
    registry: Registry, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch, pauses: list[str]
) -> None:
    """The dot was not out, so it cannot have arrived."""
    people(registry, 2)
    flush, broken = Lane._flush, iter([True])  # noqa: SLF001 -- loopback's buffers take any email whole

    def breaks(lane: Lane) -> None:
        if lane._unsaid.startswith(b"From:") and next(broken, False):  # noqa: SLF001 -- as above
            lane._unsaid = lane._unsaid[100:]  # noqa: SLF001 -- as above
            raise BrokenPipeError
        flush(lane)

    monkeypatch.setattr(Lane, "_flush", breaks)
    with Smtpd() as relay:
        day = make_pipeline(relay, smtp=ONE, delivery={"retry_pauses": pauses}).run(NOW)
    assert day.numbers == ({"sent": 2} if pauses else {"sent": 1, "deferred": 1})
    assert attempts(registry)[0] == ("deferred", "data", None, "connection lost")
    assert len(relay.accepted) == (2 if pauses else 1)
    counted = registry.execute("SELECT state, attempts FROM token_pipelines.notices ORDER BY state")
    assert set(counted) == ({("sent", 1)} if pauses else {("deferred", 0), ("sent", 1)}), "it was no attempt"


@pytest.mark.parametrize(
    ("action", "reply"),
    [
        (Action(drop="before"), "connection lost after the final dot"),
        (Action(drop="after"), "connection lost after the final dot"),
        (Action(stall=1.5), "no answer in time after the final dot"),
        (Action(drip=0.1), "no answer in time after the final dot"),
        (Action(endless=True), "endless answer after the final dot"),
    ],
    ids=["drop", "drop-after", "stall", "drip", "endless"],
)
def test_message_without_an_answer_is_in_doubt_and_the_next_is_sent(
    registry: Registry, make_pipeline: MakePipeline, action: Action, reply: str
) -> None:
    """The next one's commands were said behind its dot: it is sent on another connection."""
    people(registry, 3)
    with Smtpd(script=times(1, "dot", action)) as relay:
        day = make_pipeline(relay, smtp=BRIEF).run(NOW)
    assert (day.numbers, day.troubles) == ({"sent": 2, "unknown": 1}, [])
    assert ("unknown", "dot", None, reply) in attempts(registry)
    assert relay.connections == 2


def test_relay_that_closes_after_a_message_puts_it_off(registry: Registry, make_pipeline: MakePipeline) -> None:
    people(registry, 2)
    with Smtpd(script=times(1, "dot", Action(code=421, text="4.3.2 closing"))) as relay:
        day = make_pipeline(relay, smtp=ONE, delivery={"retry_pauses": ["0s"]}).run(NOW)
    assert (day.numbers, day.troubles) == ({"sent": 2}, [])
    assert attempts(registry)[0][:3] == ("deferred", "dot", 421)


def test_relay_that_restarts_is_waited_for(registry: Registry, make_pipeline: MakePipeline) -> None:
    """All connections are lost at once, and for a while there is no other."""
    people(registry, 12)
    mails = iter(range(99))
    refusals = iter(range(6))
    is_down = [False]

    def script(stage: str, _argument: str) -> Action | None:
        if stage == "mail" and next(mails) == 3:
            is_down[0] = True
        if is_down[0] and stage == "connect":
            is_down[0] = next(refusals, None) is not None
            return Action(code=421, text="4.3.2 starting")
        return Action(code=421, text="4.3.2 going down", drop="answered") if is_down[0] and stage != "dot" else None

    smtp = {"connections": 4, "reconnect_pauses": ["0s", "0s", "0s", "1s", "1s"]}
    with Smtpd(script=script) as relay:
        day = make_pipeline(relay, smtp=smtp).run(NOW)
    assert (day.numbers, day.troubles) == ({"sent": 12}, [])
    assert len(relay.accepted) == 12


def test_relay_that_ends_connections_before_they_are_used_stops_the_tier(
    registry: Registry, make_pipeline: MakePipeline
) -> None:
    people(registry, 3)
    with Smtpd(script=at_stage("ehlo", Action(drop="answered"))) as relay:
        day = make_pipeline(relay, smtp={"connections": 2, "reconnect_pauses": ["0s"]}).run(NOW)
    assert day.numbers == {"waiting": 3}
    assert len(day.troubles) == 1
    assert set(states(registry)) == {"planned"}


def test_connection_is_renewed_after_so_many_messages(registry: Registry, make_pipeline: MakePipeline) -> None:
    people(registry, 5)
    with Smtpd() as relay:
        assert make_pipeline(relay, smtp={"connections": 1, "recycle_after": 2}).run(NOW).numbers == {"sent": 5}
    assert (relay.connections, relay.commands.count("QUIT")) == (3, 3)


def test_email_that_cannot_be_written_is_put_off_alone(
    registry: Registry, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_ = people(registry, 3)
    write = Channel.write

    def fails_for_one(self: Channel, recipient: Any, *content: Any, **more: Any) -> Envelope:  # noqa: ANN401 -- passed on
        if recipient.recipient_id == first:
            msg = "person0@example.org cannot be written to"
            raise ValueError(msg)
        return write(self, recipient, *content, **more)

    monkeypatch.setattr(Channel, "write", fails_for_one)
    with Smtpd() as relay:
        day = make_pipeline(relay).run(NOW)
    assert (day.numbers, day.troubles) == ({"sent": 2, "deferred": 1}, [])
    ((state, stage, _, reply),) = [attempt for attempt in attempts(registry) if attempt[0] == "deferred"]
    assert (state, stage) == ("deferred", "connect")
    assert reply.startswith("the email could not be written (ValueError at fails_for_one:")


# The ledger


def end_connections(registry: Registry) -> None:
    """As when Postgres is restarted."""
    registry.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'token-pipelines ledger'"
    )


def test_ledger_lost_in_the_middle_stops_the_tier_and_what_was_answered_is_recorded(
    registry: Registry, make_pipeline: MakePipeline
) -> None:
    """Nothing more is said; answers that are under way are waited for; all are recorded on a new connection."""
    people(registry, 40)
    dots = iter(range(99))

    def script(stage: str, _argument: str) -> Action | None:
        if stage != "dot":
            return None
        number = next(dots)
        if number == 5:
            end_connections(registry)
        return Action(stall=0.3) if number in {3, 4} else None  # they are answered when the ledger is gone

    with Smtpd(script=script) as relay:
        day = make_pipeline(relay, smtp={"connections": 4}).run(NOW)
        sent = len(relay.accepted)
    assert [type(trouble) for trouble in day.troubles] == [LedgerError]
    assert "was lost while we spoke to it" in str(day.troubles[0])
    assert 6 <= sent <= 9, "nothing was begun after the loss"
    assert states(registry) == {"sent": sent, "planned": 40 - sent}
    assert len(attempts(registry)) == sent
    assert day.numbers == {"sent": sent, "waiting": 40 - sent}
    with Smtpd() as relay:
        assert make_pipeline(relay).run(NOW + HOUR).numbers == {"sent": 40 - sent}


def test_ledger_that_stays_away_leaves_what_was_on_sockets_in_doubt(
    registry: Registry, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most one message a connection; the next run sends the same bytes again."""
    people(registry, 20)
    settle, calls = Settlement.settle, iter(range(999))
    is_away = [False]

    def goes_away(self: Settlement, records: Any, marks: Any) -> set[str]:  # noqa: ANN401 -- passed on
        is_away[0] |= next(calls) >= 8 and bool(records)  # so that at least one stays in doubt
        if is_away[0]:
            msg = "The ledger is away."
            raise LedgerError(msg)
        return settle(self, records, marks)

    with monkeypatch.context() as patched, Smtpd() as relay:
        patched.setattr(Settlement, "settle", goes_away)
        day = make_pipeline(relay, smtp={"connections": 2}).run(NOW)
    first = [(accepted.recipient, accepted.data) for accepted in relay.accepted]
    assert [str(trouble) for trouble in day.troubles] == ["The ledger is away."]
    in_doubt = states(registry)["unknown"]
    assert 1 <= in_doubt <= 2
    assert states(registry) == {
        "sent": len(first) - in_doubt,
        "unknown": in_doubt,
        "planned": 20 - len(first),
    }
    with Smtpd() as relay:
        make_pipeline(relay).run(NOW + HOUR)
    again = {accepted.recipient: accepted.data for accepted in relay.accepted}
    resent = [(recipient, data) for recipient, data in first if recipient in again]
    assert len(resent) == in_doubt
    assert all(again[recipient] == data for recipient, data in resent)
    assert states(registry) == {"sent": 20}


# The source, and faults of ours


def test_source_that_fails_in_the_middle_lets_what_is_on_sockets_finish(
    registry: Registry, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    people(registry, 24)
    resolve, reads = Source.resolve, iter(range(99))

    def fails_later(self: Source, ids: Any) -> Any:  # noqa: ANN401 -- passed on
        if next(reads) == 3:
            msg = "The source is away."
            raise SourceError(msg, unreachable=True)
        return resolve(self, ids)

    monkeypatch.setattr(Source, "resolve", fails_later)
    with Smtpd(script=at_stage("dot", Action(stall=0.05))) as relay:
        day = make_pipeline(relay, smtp={"connections": 2}).run(NOW)
    sent = len(relay.accepted)
    assert [str(trouble) for trouble in day.troubles] == ["The source is away."]
    assert 0 < sent < 24
    assert states(registry) == {"sent": sent, "planned": 24 - sent}


@pytest.mark.parametrize("pause", [0, 0.02])
@pytest.mark.parametrize("number", range(2, 10))
def test_fault_of_ours_stops_the_tier_and_leaves_no_doubt(
    registry: Registry, make_pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch, number: int, pause: float
) -> None:
    """Wherever it happens; one that was marked and not said is put off. A pause lets two be marked in one turn."""
    people(registry, 12)
    take, wait, calls = Outbox.take, Connections.wait, iter(range(999))

    def waits_longer(self: Connections, seconds: float) -> Any:  # noqa: ANN401 -- passed on
        time.sleep(pause)
        return wait(self, seconds)

    def breaks(self: Outbox) -> Any:  # noqa: ANN401 -- passed on
        if next(calls) == number:
            msg = "person3@example.org"
            raise IndexError(msg)
        return take(self)

    monkeypatch.setattr(Outbox, "take", breaks)
    monkeypatch.setattr(Connections, "wait", waits_longer)
    with Smtpd() as relay:
        day = make_pipeline(relay, smtp={"connections": 2}).run(NOW)
    (trouble,) = day.troubles
    assert type(trouble) is TokenPipelinesError
    assert str(trouble).startswith("Sending stopped by a fault of ours (IndexError at breaks:")
    found = states(registry)
    assert set(found) <= {"sent", "planned", "deferred"}
    assert found["sent"] == len(relay.accepted)


# Interrupts


class Interrupted(BaseException):
    """As Dagster's own."""


def interrupt_at(number: int, *, stage: str = "dot", count: int = 1) -> Script:
    """A script that sends SIGTERM to this process at the n-th message, and answers it slowly."""
    reached = iter(range(99))

    def script(now: str, _argument: str) -> Action | None:
        if now != stage or next(reached) != number:
            return None
        for _ in range(count):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)  # the main thread takes one before the next comes
        return Action(stall=0.3)

    return script


@pytest.fixture
def handled() -> Any:  # noqa: ANN401 -- a generator
    """A handler as Dagster's, which raises an error of its own."""

    def handle(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGTERM, handle)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("handled")
def test_first_interrupt_waits_for_the_answers_and_is_raised_then(
    registry: Registry, make_pipeline: MakePipeline
) -> None:
    people(registry, 20)
    with Smtpd(script=interrupt_at(5)) as relay:
        house = make_pipeline(relay, smtp={"connections": 2})
        with pytest.raises(Interrupted):
            house.run(NOW)
        sent = len(relay.accepted)
    assert 6 <= sent <= 8
    assert states(registry) == {"sent": sent, "planned": 20 - sent}


@pytest.mark.usefixtures("handled")
def test_second_interrupt_leaves_at_once_and_at_most_one_message_a_connection_in_doubt(
    registry: Registry, make_pipeline: MakePipeline
) -> None:
    people(registry, 20)
    with Smtpd(script=interrupt_at(5, count=2)) as relay:
        house = make_pipeline(relay, smtp={"connections": 2})
        with pytest.raises(Interrupted):
            house.run(NOW)
        found = states(registry)
    assert 1 <= found["unknown"] <= 2
    assert found["unknown"] + found["sent"] + found["planned"] == 20
    assert len(relay.accepted) <= found["sent"] + found["unknown"]


@pytest.mark.usefixtures("handled")
def test_interrupt_ends_a_pause(registry: Registry, make_pipeline: MakePipeline) -> None:
    people(registry, 1)
    timers: list[threading.Timer] = []

    def later(stage: str, _argument: str) -> Action | None:
        if stage != "rcpt":
            return None
        timers.append(threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)))
        timers[-1].start()
        return Action(code=451, text="4.2.0 later")

    with Smtpd(script=later) as relay:
        house = make_pipeline(relay, delivery={"retry_pauses": ["1h"], "deadline": "2h"})
        with pytest.raises(Interrupted):
            house.run(NOW)
    timers[0].join()
    assert states(registry) == {"deferred": 1}


def test_many_connections_need_few_of_the_ledgers(registry: Registry, make_pipeline: MakePipeline) -> None:
    people(registry, 80)
    most: list[int] = []

    def count(stage: str, _argument: str) -> None:
        if stage == "dot":
            query = (
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'token-pipelines ledger'"
            )
            most.append(registry.execute(query)[0][0])

    with Smtpd(script=count) as relay:
        assert make_pipeline(relay, smtp={"connections": 64}).run(NOW).numbers == {"sent": 80}
    assert max(most) <= 4
