"""Nothing lost, nothing twice: random stories over the real ledger in Postgres, held against what the relay saw.

A story adds tokens, lets days pass or be missed, starts processes, stops them anywhere, kills them, takes them for
dead while they live, cuts the database, changes the configuration; the relay answers as it likes. What must hold is
written beside each check. The product's code is real: source, policy, planning, ledger, delivery, rendering. Only the
relay is ours, since SMTP has tests of its own.

``TOKEN_PIPELINES_STATE_MACHINE_EXAMPLES=2000`` makes it a soak.
"""

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from psycopg import sql
from state_machine.house import House
from state_machine.story import Story
from state_machine.strategies import DAY, LADDERS
from state_machine.truth import Answer
from state_machine.worker import Inline, watched_resolve

from token_pipelines.delivery import batches
from token_pipelines.delivery import tier as delivery
from token_pipelines.ledger import heartbeat

EXAMPLES: Final = int(os.environ.get("TOKEN_PIPELINES_STATE_MACHINE_EXAMPLES", "25"))
STEPS: Final = 50
NEVER_S: Final = 1e6
SECONDS_AN_EXAMPLE: Final = 20  # for the test's own time limit: a failing one is shrunk


@pytest.fixture
def house(registry_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """Give the databases and the parts; heartbeats stand still, as the stories' clock does."""
    monkeypatch.setattr(heartbeat, "HEARTBEAT_S", NEVER_S)
    monkeypatch.setattr(delivery, "HelperPool", Inline)
    monkeypatch.setattr(batches, "resolve", watched_resolve)
    with psycopg.connect(registry_url, autocommit=True) as connection:
        # The server does not crash here, and a story commits a thousand times.
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(name))
    house = House(registry_url, tmp_path)
    yield house
    house.close()


@pytest.mark.timeout(300 + EXAMPLES * SECONDS_AN_EXAMPLE)
def test_nothing_is_lost_and_nothing_is_told_twice(house: House) -> None:
    run_state_machine_as_test(
        lambda: Story(house),  # type: ignore[arg-type] # any callable that makes a machine will do
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


A_WEEK: Final = ((7, timedelta(0)), 90 * DAY, frozenset({"1"}))


def test_a_plan_for_a_day_long_past_is_sent(house: House) -> None:
    """A day is a label. Leftovers were once looked for by it, and such a notice waited for ever."""
    story = _story(house)
    story.run_day(script=[Answer.TROUBLE], days_back=45)
    story.run_day()
    assert _end(story) == [Answer.TROUBLE, Answer.SENT]


def test_a_run_that_was_held_for_dead_does_not_free_what_another_has_sent(house: House) -> None:
    """Skipping once freed the tokens without asking whose the notice was by then: told twice."""
    story = _story(house)
    story.start(place=("reading", 1))
    story.give_up_a_living(index=0, by_lease=True)
    story.run_day()
    story.revoke_or_undo(0)
    story.go_on_to_the_end(index=0)
    story.revoke_or_undo(0)
    story.run_day()
    assert _end(story) == [Answer.SENT]


@pytest.mark.parametrize("transaction", [1, 2, 3])
def test_a_run_that_dies_while_it_skips_uses_nothing_up(house: House, transaction: int) -> None:
    """The notice was once skipped in one transaction and its tokens were freed in the next."""
    story = _story(house)
    story.run_and_die(place=("reading", 1), noticed="orchestrator")
    story.revoke_or_undo(0)
    story.start(place=("reading", 1))
    story.go_on(index=0, place=("transaction", transaction))
    story.kill(index=0, noticed="orchestrator")
    story.revoke_or_undo(0)
    story.run_day()
    assert _end(story) == [Answer.SENT]


def test_what_is_marked_as_told_is_not_sent_although_it_waits(house: House) -> None:
    """A ledger restored from a backup holds notices that waited then and have been sent since."""
    story = _story(house)
    story.run_day(script=[Answer.TROUBLE])
    story.time_passes(pause=DAY)
    story.mark_notified(timedelta(0))
    story.run_day()
    assert _end(story) == [Answer.TROUBLE]


def test_a_notice_in_doubt_is_sent_again_after_its_tier_was_renamed(house: House) -> None:
    """It once belonged to a tier that nobody ran any more."""
    story = _story(house)
    story.run_day(script=[Answer.LOST_BEFORE_ARRIVAL])
    story.change_tiers(LADDERS[2])
    story.run_day()
    assert _end(story) == [Answer.LOST_BEFORE_ARRIVAL, Answer.SENT]


def test_a_notice_in_doubt_is_not_sent_again_after_a_more_urgent_one(house: House) -> None:
    """Not even when the more urgent tier is gone since: resolving once asked the present tiers only."""
    story = _story(house)
    story.run_day(script=[Answer.LOST_BEFORE_ARRIVAL])
    story.time_passes(pause=6 * DAY)
    story.run_day()
    story.change_tiers(LADDERS[3])
    story.run_day()
    assert _end(story) == [Answer.LOST_BEFORE_ARRIVAL, Answer.SENT]


def _story(house: House) -> Story:
    story = Story(house)
    story.begin(tokens=[A_WEEK])
    return story


def _end(story: Story) -> list[Answer | None]:
    """Check everything once more; what became of each message."""
    story.teardown()
    return [attempt.answer for attempt in story.truth.attempts]
