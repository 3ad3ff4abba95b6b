"""Planning: what is done before its lock and what inside it, and the volume fuse."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from inspect import isfunction
from pathlib import Path
from typing import Any

import pytest
from support.pipeline import DAY, NOW, PipelineRunner, Registry
from support.smtpd import Action, Smtpd

from token_pipelines.errors import FuseTripped
from token_pipelines.ledger.ledger import Ledger
from token_pipelines.ledger.planning import Planning
from token_pipelines.pipeline import Pipeline
from token_pipelines.source.databases.postgres_reader import PostgresReader
from token_pipelines.source.source import Source

LATER = Action(code=450, text="4.2.2 mailbox full")
NO_SUCH_USER = Action(code=550, text="5.2.1 disabled")


class Relay(Smtpd):
    """A relay that gives everybody the same answer, until it is told another."""

    def __init__(self) -> None:
        """Everybody is accepted."""
        self.answer: Action | None = None
        super().__init__(script=lambda stage, _: self.answer if stage == "rcpt" else None)


@pytest.fixture
def relay() -> Iterator[Relay]:
    with Relay() as relay:
        yield relay


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Make every access to a source fail while planning has its lock. Holds one item for each time it had."""
    held: list[bool] = []
    planning = Ledger.planning

    @contextmanager
    def watched(ledger: Ledger, **arguments: Any) -> Iterator[Planning]:  # noqa: ANN401 -- passed on
        with planning(ledger, **arguments) as opened:
            held.append(True)
            yield opened
            held[-1] = False

    def refusing(method: Any) -> Any:  # noqa: ANN401 -- passed on
        def access(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401 -- passed on
            assert not any(held), "the source was read while planning had its lock"
            return method(*arguments, **named)

        return access

    monkeypatch.setattr(Ledger, "planning", watched)
    for part in (Source, PostgresReader):
        for name, method in vars(part).items():
            if isfunction(method) and name != "__init__":
                monkeypatch.setattr(part, name, refusing(method))
    return held


def change_address(registry: Registry, login: str, address: str) -> None:
    registry.execute(
        "UPDATE emails SET email = %s WHERE user_id = (SELECT id FROM users WHERE gh_login = %s)", address, login
    )


def refused(pipeline: PipelineRunner, registry: Registry, relay: Relay) -> str:
    """Somebody whose address was refused for good; the token."""
    token = registry.token(registry.user("ada", email="old@example.org"), expires_at=NOW + 5 * DAY)
    relay.answer = NO_SUCH_USER
    assert pipeline.run(NOW).numbers == {"deferred": 1}
    believe(registry)
    relay.answer = None
    return token


def believe(registry: Registry) -> None:
    """As when others were accepted: the refusals count."""
    registry.execute("UPDATE token_pipelines.notices SET state = 'failed' WHERE state = 'deferred'")


def test_changed_address_is_found_before_the_lock_and_told_in_the_same_run(
    tmp_path: Path, registry: Registry, relay: Relay, locked: list[bool]
) -> None:
    pipeline = PipelineRunner(tmp_path, registry.url, relay.port)
    refused(pipeline, registry, relay)
    assert pipeline.run(NOW).skipped == {"refused_address": 1}
    change_address(registry, "ada", "new@example.org")

    assert pipeline.run(NOW).numbers == {"sent": 1}

    assert [mail.recipient for mail in relay.accepted] == ["new@example.org"]
    assert locked == [False] * 3


def test_address_spelt_in_another_way_is_not_another_address(tmp_path: Path, registry: Registry, relay: Relay) -> None:
    pipeline = PipelineRunner(tmp_path, registry.url, relay.port)
    refused(pipeline, registry, relay)
    change_address(registry, "ada", "Old@EXAMPLE.org")

    assert pipeline.run(NOW).skipped == {"refused_address": 1}


class Meanwhile:
    """Does something between the read of changed addresses and planning's lock."""

    def __init__(self, pipeline: Pipeline) -> None:
        """Nothing yet."""
        self._pipeline = pipeline
        self.numbers: dict[str, int] = {}

    def patch(self, monkeypatch: pytest.MonkeyPatch, other: PipelineRunner, registry: Registry) -> None:
        """Let ``other`` run a whole day there, once. What the relay refuses is believed."""
        planning = self._pipeline.ledger.planning
        due = [True]

        def wait_for_the_lock(**arguments: Any) -> AbstractContextManager[Planning]:  # noqa: ANN401 -- passed on
            if due:
                due.clear()
                self.numbers = other.run(NOW).numbers
                believe(registry)
            return planning(**arguments)

        monkeypatch.setattr(self._pipeline.ledger, "planning", wait_for_the_lock)


@pytest.mark.parametrize(("answer", "expected"), [(None, {"sent": 1}), (NO_SUCH_USER, {"deferred": 1})])
def test_changed_address_that_another_run_has_met_since_is_left_as_it_is(
    tmp_path: Path,
    registry: Registry,
    relay: Relay,
    monkeypatch: pytest.MonkeyPatch,
    answer: Action | None,
    expected: dict[str, int],
) -> None:
    """What was read before the lock is looked at again inside it: the other run told them, or was refused there too."""
    pipeline = PipelineRunner(tmp_path, registry.url, relay.port)
    refused(pipeline, registry, relay)
    change_address(registry, "ada", "new@example.org")
    relay.answer = answer
    (tmp_path / "other").mkdir()
    other = PipelineRunner(tmp_path / "other", registry.url, relay.port)
    other._runs = 100  # noqa: SLF001 -- its runs have names of their own
    meanwhile = Meanwhile(pipeline.parts(NOW))
    meanwhile.patch(monkeypatch, other, registry)

    late = pipeline.run(NOW)

    assert meanwhile.numbers == expected
    assert late.numbers == {}
    assert len(relay.accepted) == expected.get("sent", 0)


def test_fuse_does_not_count_what_waits_already(tmp_path: Path, registry: Registry, relay: Relay) -> None:
    """After an outage a backlog waits, some of it by now at a more urgent tier. None of it is new."""
    for name, days in [("ada", 5), ("bob", 6), ("eve", 20)]:
        registry.token(registry.user(name, email=f"{name}@example.org"), expires_at=NOW + days * DAY)
    relay.answer = LATER
    assert PipelineRunner(tmp_path, registry.url, relay.port).run(NOW).numbers == {"deferred": 3}
    registry.token(registry.user("new", email="new@example.org"), expires_at=NOW + 20 * DAY)
    relay.answer = None

    later = PipelineRunner(tmp_path, registry.url, relay.port, delivery={"max_notices": 1}).run(NOW + 4 * DAY)

    assert later.numbers == {"sent": 4}
    assert later.tiers["day"].sent == 2, "their notice of the week was replaced"


def test_fuse_counts_one_more_than_its_limit(tmp_path: Path, registry: Registry, relay: Relay) -> None:
    for name in ("ada", "bob"):
        registry.token(registry.user(name, email=f"{name}@example.org"), expires_at=NOW + 5 * DAY)
    pipeline = PipelineRunner(tmp_path, registry.url, relay.port, delivery={"max_notices": 1})

    with pytest.raises(FuseTripped, match=r"2 notices were new on 2026-11-20, over delivery\.max_notices of 1;"):
        pipeline.run(NOW)

    assert pipeline.history() == []


@pytest.mark.parametrize(("limit", "sent"), [(1, None), (2, None), (3, 3)])
def test_fuse_is_approved_by_a_limit_of_at_least_what_tripped_it(
    tmp_path: Path, registry: Registry, relay: Relay, limit: int, sent: int | None
) -> None:
    for name in ("ada", "bob", "eve"):
        registry.token(registry.user(name, email=f"{name}@example.org"), expires_at=NOW + 5 * DAY)
    with pytest.raises(FuseTripped):
        PipelineRunner(tmp_path, registry.url, relay.port, delivery={"max_notices": 1}).run(NOW)

    raised = PipelineRunner(tmp_path, registry.url, relay.port, delivery={"max_notices": limit})

    if sent is None:
        with pytest.raises(FuseTripped, match=r"raise delivery\.max_notices to at least 3"):
            raised.run(NOW + DAY)
    else:
        assert raised.run(NOW + DAY).sent == sent


def test_fuse_trips_again_when_more_is_new_than_what_was_approved(
    tmp_path: Path, registry: Registry, relay: Relay
) -> None:
    def add(number: int) -> None:
        registry.token(registry.user(f"u{number}", email=f"u{number}@example.org"), expires_at=NOW + 5 * DAY)

    for number in range(2):
        add(number)
    with pytest.raises(FuseTripped):
        PipelineRunner(tmp_path, registry.url, relay.port, delivery={"max_notices": 1}).run(NOW)
    add(2)
    raised = PipelineRunner(tmp_path, registry.url, relay.port, delivery={"max_notices": 2})

    with pytest.raises(FuseTripped, match=r"3 notices were new on 2026-11-20, over delivery\.max_notices of 2;"):
        raised.run(NOW)

    rows = registry.execute("SELECT new_notices, approved_at IS NOT NULL FROM token_pipelines.fuse_trips")
    assert sorted(rows) == [(2, True), (3, False)]
