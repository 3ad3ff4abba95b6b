"""Whole days of a careful start: redirect, dry run, rollout, fuse, adoption."""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing

import pytest
from support.pipeline import DAY, NOW, MakePipeline, Registry
from support.scenarios import HOUR, html, recipients, text, three_people
from support.smtpd import Smtpd

from token_pipelines.errors import FuseTripped
from token_pipelines.model import Mode


def test_redirect_goes_to_the_operator_and_does_not_use_up_the_live_notice(
    registry: Registry, make_pipeline: MakePipeline
) -> None:
    three_people(registry)
    redirect = {"mode": "redirect", "redirect_to": "ops@example.org"}
    links = {"manage": "https://example.org/tokens", "unsubscribe": "https://example.org/stop/{recipient_id}"}
    with Smtpd() as relay:
        rehearsal = make_pipeline(relay, delivery=redirect, email={"links": links})
        assert [rehearsal.run(NOW).sent, rehearsal.run(NOW + HOUR).sent] == [3, 0]
        assert recipients(relay) == ["ops@example.org"] * 3
        assert {accepted.message["To"] for accepted in relay.accepted} == {"ops@example.org"}
        assert {accepted.message["List-Unsubscribe"] for accepted in relay.accepted} == {None}
        assert not [accepted for accepted in relay.accepted if "/stop/" in text(accepted) + html(accepted)]
    with Smtpd() as relay:
        live = make_pipeline(relay)
        assert live.run(NOW + 2 * HOUR).sent == 3
        assert recipients(relay) == ["ada@example.org", "bob@example.org", "eve@example.org"]
    assert Counter(entry["mode"] for entry in live.history()) == {"redirect": 3, "live": 3}


def test_dry_run_says_what_would_be_sent_and_writes_nothing(registry: Registry, make_pipeline: MakePipeline) -> None:
    three_people(registry)
    with Smtpd() as relay:
        house = make_pipeline(relay, delivery={"mode": "dry_run"})
        assert [house.run(NOW).numbers, house.run(NOW).numbers] == [{"waiting": 3}] * 2
        assert relay.connections == 0
        tables = ("notices", "notice_tokens", "attempts", "suppressions", "fuse_trips", "told_before")
        rows = {table: registry.execute(f"SELECT 1 FROM token_pipelines.{table}") for table in tables}  # noqa: S608
        assert rows == {table: [] for table in tables}
        assert make_pipeline(relay, delivery={"mode": "live"}).run(NOW).sent == 3
        assert make_pipeline(relay, delivery={"mode": "dry_run"}).run(NOW).numbers == {}


def test_rollout_widens_without_losing_or_repeating_anybody(registry: Registry, make_pipeline: MakePipeline) -> None:
    people = three_people(registry)
    with Smtpd() as relay:
        few = make_pipeline(relay, delivery={"only_recipients": [people["ada"]]}).run(NOW)
        assert (few.numbers, few.skipped) == ({"sent": 1}, {"not_in_rollout": 2})
        assert recipients(relay) == ["ada@example.org"]
        none = make_pipeline(relay, delivery={"only_recipients": [], "rollout_percent": 0}).run(NOW)
        assert (none.numbers, none.skipped) == ({}, {"not_in_rollout": 2})
        assert make_pipeline(relay, delivery={"rollout_percent": 100}).run(NOW).numbers == {"sent": 2}
    assert recipients(relay) == ["ada@example.org", "bob@example.org", "eve@example.org"]


def test_fuse_holds_this_day_and_later_ones_until_a_person_approves(
    registry: Registry, make_pipeline: MakePipeline
) -> None:
    three_people(registry)
    with Smtpd() as relay:
        house = make_pipeline(relay, delivery={"max_notices": 2})
        for now in (NOW, NOW + DAY):
            with pytest.raises(FuseTripped, match=r"3 notices were new on 2026-11-20, over delivery\.max_notices of 2"):
                house.run(now)
        assert house.history() == []
        assert house.run(NOW + DAY, approve=True).sent == 3
        assert house.run(NOW + DAY).numbers == {}


def test_fuse_at_its_limit_holds_nothing(registry: Registry, make_pipeline: MakePipeline) -> None:
    three_people(registry)
    with Smtpd() as relay:
        assert make_pipeline(relay, delivery={"max_notices": 3}).run(NOW).sent == 3


def test_adoption_counts_what_came_due_before_an_instant_as_told(
    registry: Registry, make_pipeline: MakePipeline
) -> None:
    ada = registry.user("ada", email="ada@example.org")
    registry.token(ada, expires_at=NOW + 6 * DAY, name="was in its week already")
    with Smtpd() as relay:
        house = make_pipeline(relay)
        parts = house.parts(NOW)
        with closing(parts.ledger):
            parts.ledger.migrate()
            parts.ledger.told.mark_before(NOW, mode=Mode.LIVE, at=NOW)
        day = house.run(NOW)
        assert (day.numbers, day.examination.reasons) == ({}, {"already_notified": 1})
        assert house.run(NOW + 4 * DAY).sent == 1, "the next step is told"


def test_tier_that_is_renamed_or_added_repeats_nothing(registry: Registry, make_pipeline: MakePipeline) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 6 * DAY)
    tiers: Sequence[dict[str, str]] = [{"name": "soon", "before": "7d"}, {"name": "fortnight", "before": "14d"}]
    with Smtpd() as relay:
        assert make_pipeline(relay).run(NOW).sent == 1
        assert make_pipeline(relay, tiers=tiers).run(NOW + HOUR).numbers == {}
        assert make_pipeline(relay, tiers=[*tiers, {"name": "five", "before": "5d"}]).run(NOW + HOUR).sent == 1


def test_what_waits_for_a_tier_that_is_dropped_is_closed(
    registry: Registry, make_pipeline: MakePipeline, closed_port: int
) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 6 * DAY)
    make_pipeline(closed_port).run(NOW)
    with Smtpd() as relay:
        house = make_pipeline(relay, tiers=[{"name": "soon", "before": "2d"}])
        assert house.run(NOW + HOUR).numbers == {}
    assert [(entry["tier"], entry["state"]) for entry in house.history()] == [("week", "withdrawn")]
