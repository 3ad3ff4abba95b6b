"""``mark-notified``: an operator's word that something was told, its list, and how it is taken back."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from support.commands import RUN, Command, Configure, mistake, someone
from support.pipeline import Registry
from support.smtpd import Smtpd

from token_pipelines.model import rfc3339

PAST = "2026-11-22T09:00:00Z"
TO_COME = rfc3339((datetime.now(UTC) + timedelta(days=365)).replace(microsecond=0))


def marks(command: Command) -> list[dict[str, str]]:
    return [json.loads(line) for line in command("mark-notified", "--list", "--json").out.splitlines()]


def test_instant_to_come_is_refused_without_yes(command: Command, configure: Configure) -> None:
    configure()
    refused = mistake(command("mark-notified", "--before", TO_COME), 2)
    assert refused.startswith(f"{TO_COME} is still to come, so nothing was marked")
    assert marks(command) == []
    assert command("mark-notified", "--before", TO_COME, "--yes").status == 0
    assert [mark["before"] for mark in marks(command)] == [TO_COME]


def test_mark_is_listed_and_undone(command: Command, configure: Configure, registry: Registry) -> None:
    someone(registry)
    with Smtpd() as relay:
        configure(relay.port)
        said = command("mark-notified", "--before", PAST)
        [mark] = marks(command)
        assert said.out.endswith(f"token-pipelines mark-notified --undo {mark['id']}\n")
        assert mark == {
            "version": 1,
            "id": mark["id"],
            "before": PAST,
            "mode": "live",
            "marked_at": mark["marked_at"],
        }
        assert mark["id"] in command("mark-notified", "--list").out
        assert json.loads(command(*RUN).out)["tiers"]["day"]["sent"] == 0

        undone = command("mark-notified", "--undo", mark["id"])

        assert (undone.status, undone.err) == (0, "")
        assert command("mark-notified", "--list").out == "Nothing is marked.\n"
        assert sum(tier["sent"] for tier in json.loads(command(*RUN).out)["tiers"].values()) == 1


def test_undo_of_a_mark_that_is_not_there(command: Command, configure: Configure) -> None:
    configure()
    assert mistake(command("mark-notified", "--undo", "7"), 2) == (
        "There is no mark 7; `token-pipelines mark-notified --list` shows them."
    )


@pytest.mark.parametrize("arguments", [(), ("--list", "--undo", "1"), ("--before", PAST, "--list")])
def test_one_of_before_list_and_undo_is_needed(
    command: Command, configure: Configure, arguments: tuple[str, ...]
) -> None:
    configure()
    assert mistake(command("mark-notified", *arguments), 2) == (
        "mark-notified needs one of --before INSTANT, --list and --undo ID."
    )
