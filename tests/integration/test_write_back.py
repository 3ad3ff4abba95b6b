"""The operator's own statement after sending: run for what was sent, and never at the cost of the ledger."""

import logging
import socket
import threading
from typing import Any, Self

import pytest
from support.pipeline import DAY, NOW, MakePipeline, PipelineRunner, Registry
from support.smtpd import Smtpd
from support.write_back import HOUR, MARK, marks, not_written_back, two_people

from token_pipelines.delivery import on_sent as writing_back
from token_pipelines.errors import LedgerError


@pytest.fixture
def pipeline(make_pipeline: MakePipeline) -> MakePipeline:
    """Configure a pipeline with this statement; keywords change the config's sections."""

    def make(relay: Smtpd, on_sent: str | None = MARK, **sections: Any) -> PipelineRunner:  # noqa: ANN401 -- YAML
        source = {"on_sent": on_sent} | sections.pop("source", {})
        return make_pipeline(relay, source=source, **sections)

    return make


def test_source_is_told_of_what_was_sent(registry: Registry, pipeline: MakePipeline) -> None:
    """Of every token of a notice, and of no other; and once only."""
    told = two_people(registry)
    other = registry.token(registry.user("carol"), expires_at=NOW + 12 * HOUR)
    with Smtpd() as relay:
        house = pipeline(relay)
        first = house.run(NOW)
        registry.execute("UPDATE api_tokens SET expiry_notification_at = NULL WHERE id = %s", int(told[0]))
        again = house.run(NOW + HOUR)
    assert (first.numbers, again.numbers) == ({"sent": 2}, {})
    assert not_written_back(first) == dict.fromkeys(first.tiers, 0)
    assert marks(registry) == {told[0]: None, told[1]: NOW, told[2]: NOW, other: None}


def test_our_own_mark_does_not_silence_the_next_tier(registry: Registry, pipeline: MakePipeline) -> None:
    """The preset reads it as last_notified_at: what the ledger itself has sent counts by the ledger alone."""
    token = registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 7 * DAY + HOUR)
    with Smtpd() as relay:
        house = pipeline(relay)
        sent = {day: house.run(NOW + day * DAY).numbers for day in range(9)}
    assert {day: numbers for day, numbers in sent.items() if numbers} == {
        0: {"sent": 1},
        5: {"sent": 1},
        8: {"sent": 1},
    }
    assert marks(registry) == {token: NOW + 8 * DAY}


@pytest.mark.parametrize("delivery", [{"mode": "redirect", "redirect_to": "us@example.org"}, {"mode": "dry_run"}])
def test_source_is_told_of_live_notices_only(
    registry: Registry, pipeline: MakePipeline, delivery: dict[str, Any]
) -> None:
    tokens = two_people(registry)
    with Smtpd() as relay:
        day = pipeline(relay, delivery=delivery | {"retry_pauses": []}).run(NOW)
        assert len(relay.accepted) == (2 if delivery["mode"] == "redirect" else 0)
    assert marks(registry) == dict.fromkeys(tokens)
    assert set(not_written_back(day).values()) == {None}


def test_failure_loses_nothing_and_a_later_run_does_it(
    registry: Registry, pipeline: MakePipeline, caplog: pytest.LogCaptureFixture
) -> None:
    """The tiers stay delivered; what was missed is counted, said once, and done when the cause is fixed."""
    tokens = two_people(registry)
    registry.execute("ALTER TABLE api_tokens RENAME COLUMN expiry_notification_at TO elsewhere")
    with Smtpd() as relay, caplog.at_level(logging.ERROR):
        house = pipeline(relay, source={"query": "plain.sql"})
        (house.path.parent / "plain.sql").write_text(PLAIN, encoding="utf-8")
        broken = house.run(NOW)
        still = house.run(NOW + HOUR)
        registry.execute("ALTER TABLE api_tokens RENAME COLUMN elsewhere TO expiry_notification_at")
        repaired = house.run(NOW + 2 * HOUR, tiers=["month"])
    assert ([day.numbers for day in (broken, still, repaired)], broken.troubles) == ([{"sent": 2}, {}, {}], [])
    assert {entry["state"] for entry in house.history()} == {"sent"}
    assert not_written_back(broken) == {"expired": 0, "day": 1, "week": 2, "month": 2}
    assert set(not_written_back(still).values()) == {2}
    assert not_written_back(repaired) == {"month": 0}
    assert marks(registry) == dict.fromkeys(tokens, NOW)
    fault = broken.tiers["day"].write_back_fault
    assert 'column "expiry_notification_at" of relation "api_tokens" does not exist; fix the statement' in fault
    said = [record.getMessage() for record in caplog.records if record.name == "token_pipelines.delivery.on_sent"]
    assert said == [f"The source was not told of what was sent; later runs try again. {fault}"]


PLAIN = """
SELECT api_tokens.id AS token_id, user_id AS recipient_id, created_at, expired_at AS expires_at,
    api_tokens.name AS token_name, NULL::text AS recipient_name, emails.email
FROM api_tokens LEFT JOIN emails USING (user_id)
WHERE expired_at >= :expires_after AND expired_at < :expires_before
"""


def test_unreachable_database_stops_no_tier(registry: Registry, pipeline: MakePipeline) -> None:
    two_people(registry)
    with Smtpd() as relay:
        day = pipeline(relay, source={"on_sent_url": "postgresql://writer@127.0.0.1:1/registry"}).run(NOW)
    assert (day.numbers, day.troubles) == ({"sent": 2}, [])
    assert not_written_back(day) == {"expired": 0, "day": 1, "week": 2, "month": 2}
    assert day.tiers["week"].write_back_fault == (
        "The database of source.on_sent_url (writer@127.0.0.1:1/registry) cannot be reached; check that it runs and "
        "that this machine may connect."
    )


def test_a_statement_set_later_is_told_of_what_was_sent_before(registry: Registry, pipeline: MakePipeline) -> None:
    """As after a kill between sending and telling: the ledger knows what the source does not."""
    tokens = two_people(registry)
    with Smtpd() as relay:
        pipeline(relay, on_sent=None).run(NOW)
        assert marks(registry) == dict.fromkeys(tokens)
        pipeline(relay).run(NOW + HOUR)
    assert marks(registry) == dict.fromkeys(tokens, NOW)


# What the source refuses of some tokens only


ODD = "ALTER TABLE api_tokens ADD CHECK (expiry_notification_at IS NULL OR NOT starts_with(name, 'odd'))"


def crowd(registry: Registry, *names: str) -> list[str]:
    """A token with each name, each of another person, all due in the same tier."""
    people = [registry.user(f"user{n}", email=f"user{n}@example.org") for n in range(len(names))]
    return [
        registry.token(user, expires_at=NOW + 12 * HOUR, name=name) for user, name in zip(people, names, strict=True)
    ]


@pytest.mark.parametrize("odd", [{0}, {6}, {12}, {0, 12}, {3, 4, 5}, set(range(12))], ids=str)
def test_token_that_is_refused_keeps_no_other_from_being_told(
    registry: Registry, pipeline: MakePipeline, odd: set[int]
) -> None:
    tokens = crowd(registry, *(f"odd {n}" if n in odd else f"even {n}" for n in range(13)))
    registry.execute(ODD)
    with Smtpd() as relay:
        house = pipeline(relay)
        days = [house.run(NOW), house.run(NOW + HOUR)]
    assert marks(registry) == {token: None if n in odd else NOW for n, token in enumerate(tokens)}
    assert [(day.numbers, day.troubles) for day in days] == [({"sent": 13}, []), ({}, [])]
    assert not_written_back(days[0]) == {"expired": 0} | dict.fromkeys(("day", "week", "month"), len(odd))
    assert set(not_written_back(days[1]).values()) == {len(odd)}


def test_refusal_names_a_token_and_is_said_once(
    registry: Registry, pipeline: MakePipeline, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = crowd(registry, "even 1", "odd", "even 2")
    registry.execute(ODD)
    with Smtpd() as relay, caplog.at_level(logging.ERROR):
        house = pipeline(relay)
        days = [house.run(NOW), house.run(NOW + HOUR)]
    faults = {report.write_back_fault for day in days for report in day.tiers.values()} - {""}
    [fault] = faults
    assert fault.endswith(
        ": SQLSTATE 23514, CheckViolation; fix the statement, or the rights of the account. "
        f"Refused by itself: token_id {tokens[1]}, for one."
    )
    said = [record.getMessage() for record in caplog.records if record.name == "token_pipelines.delivery.on_sent"]
    assert said == [f"The source was not told of what was sent; later runs try again. {fault}"]


def test_notice_with_a_refused_token_tells_of_its_others(registry: Registry, pipeline: MakePipeline) -> None:
    """It stays to be told, as a whole; but the others are not kept waiting."""
    ada = registry.user("ada", email="ada@example.org")
    tokens = [registry.token(ada, expires_at=NOW + 12 * HOUR, name=name) for name in ("even 1", "odd", "even 2")]
    registry.execute(ODD)
    with Smtpd() as relay:
        day = pipeline(relay).run(NOW)
    assert (day.numbers, day.tiers["day"].not_written_back) == ({"sent": 1}, 1)
    assert marks(registry) == {tokens[0]: NOW, tokens[1]: None, tokens[2]: NOW}


def test_pages_after_a_refusal_are_told_too(
    registry: Registry, pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing_back, "PAGE", 2)
    old = crowd(registry, "odd 1", "odd 2", "even 1")
    with Smtpd() as relay:
        pipeline(relay, on_sent=None).run(NOW)
        new = crowd(registry, "even 2", "odd 3", "even 3")
        pipeline(relay, on_sent=None).run(NOW + HOUR)
        registry.execute(ODD)
        day = pipeline(relay).run(NOW + 2 * HOUR, tiers=["month"])
    assert marks(registry) == dict.fromkeys([*old, *new]) | {old[2]: NOW, new[0]: NOW + HOUR, new[2]: NOW + HOUR}
    assert not_written_back(day) == {"month": 3}


COUNTED = (
    "CREATE SEQUENCE tries",
    """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM nextval('tries'); RAISE 'no'; END $$
    """,
    "CREATE TRIGGER refuse BEFORE UPDATE ON api_tokens FOR EACH STATEMENT EXECUTE FUNCTION refuse()",
)
"""Refuses everything, and counts how often: a sequence is not rolled back."""


@pytest.mark.parametrize(("limit", "value", "tries"), [("REFUSALS_IN_A_ROW", 5, 5), ("REFUSALS_S", 0.0, 1)])
def test_statement_that_is_refused_always_is_not_tried_for_ever(
    registry: Registry,
    pipeline: MakePipeline,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: float,
    tries: int,
) -> None:
    """Nor for long: a refusal after a wait for a lock would cost that wait again for each half."""
    monkeypatch.setattr(writing_back, limit, value)
    crowd(registry, *(f"token {n}" for n in range(20)))
    with Smtpd() as relay:
        pipeline(relay, on_sent=None).run(NOW)
        for statement in COUNTED:
            registry.execute(statement)
        day = pipeline(relay).run(NOW + HOUR, tiers=["month"])
    assert registry.execute("SELECT last_value FROM tries") == [(tries,)]
    assert not_written_back(day) == {"month": 20}
    assert ": SQLSTATE P0001, RaiseException; fix the statement, or the rights of the account." in (
        day.tiers["month"].write_back_fault
    )


def test_database_that_is_away_is_asked_once(
    registry: Registry, pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By each run of a tier: one that does not answer costs a timeout each time."""
    monkeypatch.setattr(writing_back, "PAGE", 2)
    crowd(registry, *(f"token {n}" for n in range(5)))
    with Smtpd() as relay, HangsUp() as server:
        pipeline(relay, on_sent=None).run(NOW)
        day = pipeline(relay, source={"on_sent_url": server.url}).run(NOW + HOUR, tiers=["week", "month"])
    assert server.asked == 2
    assert not_written_back(day) == {"week": 5, "month": 5}


class HangsUp:
    """Takes connections, and ends each at once."""

    def __enter__(self) -> Self:
        self.asked = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"postgresql://writer@127.0.0.1:{self._listening.getsockname()[1]}/registry?gssencmode=disable"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def _serve(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            with connection:
                if not connection.recv(1024):
                    return
            self.asked += 1

    def __exit__(self, *_: object) -> None:
        socket.create_connection(self._listening.getsockname()).close()
        self._thread.join()
        self._listening.close()


@pytest.mark.parametrize("error", [LedgerError("The ledger is away."), RuntimeError("a notice pruned meanwhile")])
def test_ledger_that_does_not_keep_it_stops_no_tier(
    registry: Registry, pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What the source knows and the ledger does not know of is told again: it counts as not written back."""
    tokens = two_people(registry)

    def keep(_: object) -> None:
        raise error

    with Smtpd() as relay:
        house = pipeline(relay)
        with monkeypatch.context() as patched:
            patched.setattr(house.parts(NOW).ledger.on_sent, "keep", keep)
            day = house.run(NOW)
        again = house.run(NOW + HOUR)
    assert (day.numbers, day.troubles) == ({"sent": 2}, [])
    assert not_written_back(day) == {"expired": 0, "day": 1, "week": 2, "month": 2}
    ours = "What the source was told could not be kept in the ledger (RuntimeError at keep:"
    assert day.tiers["week"].write_back_fault.startswith((str(error), ours))
    assert set(not_written_back(again).values()) == {0}
    assert marks(registry) == dict.fromkeys(tokens, NOW)


def test_mark_does_not_go_back_to_an_earlier_notice(registry: Registry, pipeline: MakePipeline) -> None:
    """The source was not told of the month's notice; when the week's is sent, the later instant stands."""
    token = registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 30 * DAY)
    with Smtpd() as relay:
        first = pipeline(relay, on_sent=None).run(NOW)
        second = pipeline(relay).run(NOW + 23 * DAY, tiers=["week"])
    assert (first.tiers["month"].sent, second.tiers["week"].sent) == (1, 1)
    assert marks(registry) == {token: NOW + 23 * DAY}
    assert set(not_written_back(second).values()) == {0}
