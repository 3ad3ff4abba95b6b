"""``doubt``: a person decides the notices in doubt that no run sends again by itself."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from support.commands import Command, Configure, mistake
from support.pipeline import DAY, Registry
from support.smtpd import Action, Smtpd

HOLD = {"on_unknown": "hold"}


class Silent:
    """A relay that hangs up after each message, until it is told to answer."""

    relay: Smtpd
    answers = False

    def script(self, stage: str, _: Any) -> Action | None:  # noqa: ANN401 -- not read
        return Action(drop="after") if stage == "dot" and not self.answers else None


@pytest.fixture
def silent() -> Iterator[Silent]:
    silent = Silent()
    with Smtpd(script=silent.script) as silent.relay:
        yield silent


def someone(registry: Registry) -> None:
    """Somebody whose token expires within a day. `doubt` has no clock for rehearsals."""
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=datetime.now(UTC) + DAY / 2)


def held(command: Command) -> list[dict[str, Any]]:
    return [json.loads(line) for line in command("doubt", "list", "--json").out.splitlines()]


def day(command: Command) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(command("run", "--json").out)["tiers"]["day"]
    return found


def test_held_notice_is_sent_again_once(
    command: Command, configure: Configure, registry: Registry, silent: Silent
) -> None:
    someone(registry)
    configure(silent.relay.port, delivery=HOLD)
    assert day(command)["unknown"] == 1
    assert day(command)["due"] == 0
    silent.answers = True
    assert day(command)["sent"] == 0, "nothing is sent before a person decides"
    [notice] = held(command)
    assert (notice["why"], notice["state"], notice["version"]) == ("hold", "unknown", 1)
    assert notice["notice_id"] in command("doubt", "list").out

    said = command("doubt", "resend", notice["notice_id"])

    assert (said.status, said.out, said.err) == (0, "The next run sends 1 notice again.\n", "")
    assert held(command) == []
    assert day(command)["sent"] == 1
    assert day(command)["due"] == 0
    [entry] = [json.loads(line) for line in command("history", "--json").out.splitlines()]
    assert (entry["notice_id"], entry["state"]) == (notice["notice_id"], "sent")
    assert "a person chose to send it again" in [attempt["reply"] for attempt in entry["attempts"]]


def test_notice_that_used_up_its_attempts_waits_and_is_accepted(
    command: Command, configure: Configure, registry: Registry, silent: Silent
) -> None:
    someone(registry)
    configure(silent.relay.port, delivery={"max_attempts": 2})
    day(command)
    assert held(command) == [], "a later run sends it again by itself"
    day(command)
    assert [notice["why"] for notice in held(command)] == ["max_attempts"]

    said = command("doubt", "accept", "--all")

    assert (said.status, said.out) == (0, "1 notice now counts as sent.\n")
    assert command("doubt", "list").out == "No notice waits for a person.\n"
    [entry] = [json.loads(line) for line in command("history", "--json").out.splitlines()]
    assert (entry["state"], bool(entry["sent_at"])) == ("sent", True)
    assert day(command)["due"] == 0


def test_resending_what_ends_in_doubt_again_waits_again(
    command: Command, configure: Configure, registry: Registry, silent: Silent
) -> None:
    someone(registry)
    configure(silent.relay.port, delivery={"max_attempts": 1})
    day(command)
    assert command("doubt", "resend", "--all").status == 0
    assert day(command)["unknown"] == 1
    assert [notice["why"] for notice in held(command)] == ["max_attempts"]


@pytest.mark.parametrize("decision", ["resend", "accept"])
def test_decision_names_what_is_wrong_and_does_nothing(
    command: Command, configure: Configure, registry: Registry, silent: Silent, decision: str
) -> None:
    someone(registry)
    configure(silent.relay.port, delivery=HOLD)
    day(command)
    [notice] = held(command)
    stranger = "01234567-89ab-cdef-0123-456789abcdef"
    cases = {
        (): "Name the notices by their ids, or all of them by --all; `token-pipelines doubt list` shows them.",
        (notice["notice_id"], "--all"): "Name the notices by their ids, or all of them by --all; `token-pipelines doubt"
        " list` shows them.",
        (notice["notice_id"], stranger): f"Notice {stranger} is not in doubt; nothing was done. `token-pipelines doubt"
        " list` shows those that are.",
        ("ada@example.org",): f"A notice's id looks like {stranger}; `token-pipelines doubt list` shows them.",
    }
    for arguments, sentence in cases.items():
        assert mistake(command("doubt", decision, *arguments), 2) == sentence
    assert len(held(command)) == 1


def test_notice_whose_tiers_are_over_can_only_be_accepted(
    command: Command, configure: Configure, registry: Registry, silent: Silent
) -> None:
    someone(registry)
    configure(silent.relay.port)
    day(command)
    registry.execute("UPDATE token_pipelines.notices SET planned_at = planned_at - interval '1 year'")
    [notice] = held(command)
    assert notice["why"] == "over"
    refused = mistake(command("doubt", "resend", notice["notice_id"]), 2)
    assert refused.startswith(f"The tiers of {notice['notice_id']} are over")
    said = command("doubt", "resend", "--all")
    assert said.out == "The next run sends 0 notices again.\nLeft alone: 1 notice whose tiers are over.\n"
    assert command("doubt", "accept", notice["notice_id"]).status == 0
    assert held(command) == []
