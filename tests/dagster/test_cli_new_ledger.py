"""A ledger that is empty or older by mistake stops the run: otherwise everybody would be told once more."""

import json
import re
from collections.abc import Iterator

import pytest
from support.commands import RUN, Command, Configure, Said, mistake, someone
from support.pipeline import Registry
from support.smtpd import Smtpd


@pytest.fixture
def relay() -> Iterator[Smtpd]:
    with Smtpd() as relay:
        yield relay


def sent(said: Said) -> int:
    return sum(tier["sent"] for tier in json.loads(said.out)["tiers"].values())


def follow(registry: Registry, sentence: str) -> None:
    """Execute the SQL that a sentence names."""
    for statement in re.findall(r"(?:DROP|ALTER) SCHEMA [^;.]+", sentence):
        registry.execute(statement)


def test_renamed_pipeline_stops_and_goes_on_with_its_renamed_ledger(
    command: Command, configure: Configure, registry: Registry, relay: Smtpd
) -> None:
    someone(registry)
    configure(relay.port, pipelines={"tokens": {}})
    assert sent(command(*RUN, "--pipeline", "tokens")) == 1
    configure(relay.port, pipelines={"user_tokens": {}})

    for arguments in [(), ("--tier", "day")]:
        stopped = mistake(command(*RUN, *arguments, "--pipeline", "user_tokens"), 1)
        assert stopped.startswith(
            "The ledger in the schema token_pipelines_user_tokens is empty, but the schema token_pipelines_tokens"
        )
    assert "`token-pipelines run --pipeline user_tokens --new-ledger`" in stopped
    assert len(relay.accepted) == 1
    follow(registry, stopped)
    assert sent(command(*RUN, "--pipeline", "user_tokens")) == 0
    assert len(relay.accepted) == 1


def test_name_given_to_a_single_pipeline_stops_until_a_person_means_it(
    command: Command, configure: Configure, registry: Registry, relay: Smtpd
) -> None:
    someone(registry)
    configure(relay.port)
    assert sent(command(*RUN)) == 1
    configure(relay.port, pipelines={"tokens": {}})

    assert "the schema token_pipelines beside it" in mistake(command(*RUN, "--pipeline", "tokens"), 1)
    assert sent(command(*RUN, "--pipeline", "tokens", "--new-ledger")) == 1
    assert sent(command(*RUN, "--pipeline", "tokens")) == 0


def test_new_pipeline_beside_one_that_the_config_names_needs_no_word(
    command: Command, configure: Configure, registry: Registry, relay: Smtpd
) -> None:
    someone(registry)
    configure(relay.port, pipelines={"tokens": {}})
    assert sent(command(*RUN, "--pipeline", "tokens")) == 1
    configure(relay.port, pipelines={"tokens": {}, "deploy_keys": {}})
    assert sent(command(*RUN, "--pipeline", "deploy_keys")) == 1


def test_ledger_of_another_source_does_not_stop(
    command: Command, configure: Configure, registry: Registry, relay: Smtpd
) -> None:
    someone(registry)
    configure(relay.port, pipelines={"tokens": {}})
    assert sent(command(*RUN, "--pipeline", "tokens")) == 1
    registry.execute("UPDATE token_pipelines_tokens.owner SET source = 'another'")
    configure(relay.port, pipelines={"deploy_keys": {}})
    assert sent(command(*RUN, "--pipeline", "deploy_keys")) == 1


LOSSES = {
    "the ledger is new": ["DROP SCHEMA token_pipelines CASCADE"],
    "its backup is older": ["DELETE FROM token_pipelines.notices", "DELETE FROM token_pipelines.runs"],
}


@pytest.mark.parametrize("loss", LOSSES)
def test_ledger_that_lacks_a_run_of_dagsters_stops_until_it_is_marked(
    command: Command, configure: Configure, registry: Registry, relay: Smtpd, loss: str
) -> None:
    someone(registry)
    configure(relay.port)
    assert sent(command(*RUN)) == 1
    for statement in LOSSES[loss]:
        registry.execute(statement)

    stopped = mistake(command(*RUN), 1)

    assert stopped.startswith("Dagster knows of a complete run, at ")
    assert len(relay.accepted) == 1
    [cure] = re.findall(r"`token-pipelines (mark-notified [^`]+)`", stopped)
    assert command(*cure.split()).status == 0
    again = command(*RUN)
    assert (again.status, sent(again)) == (0, 0)
    assert command(*RUN).status == 0


def test_new_ledger_tells_everybody_by_a_persons_word(
    command: Command, configure: Configure, registry: Registry, relay: Smtpd
) -> None:
    someone(registry)
    configure(relay.port)
    command(*RUN)
    registry.execute("DROP SCHEMA token_pipelines CASCADE")
    assert command(*RUN).status == 1
    assert sent(command(*RUN, "--new-ledger")) == 1
    assert sent(command(*RUN)) == 0
