"""The table of ``history``: whole dates, few lines, the relay's answer."""

import re

import pytest
from support.commands import RUN, Command, Configure
from support.pipeline import DAY, NOW, Registry
from support.smtpd import Action, Smtpd

DATE = "2026-11-20"


@pytest.mark.parametrize("columns", ["80", "40", None])
def test_no_date_is_cut_and_sixty_tokens_take_four_lines(
    command: Command, configure: Configure, registry: Registry, monkeypatch: pytest.MonkeyPatch, columns: str | None
) -> None:
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    ada = registry.user("ada", email="ada@example.org")
    for _ in range(60):
        registry.token(ada, expires_at=NOW + 2 * DAY)
    with Smtpd() as relay:
        configure(relay.port)
        command(*RUN)
    out = command("history").out
    assert f" {DATE} " in out
    assert re.search(r" 2026-11-20T09:00:\d\d(\.\d+)?Z ", out)
    assert "and 57 more" in out
    assert len([line for line in out.splitlines() if line.startswith("│")]) == 4


def test_answer_of_the_relay_is_shown(command: Command, configure: Configure, registry: Registry) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 2 * DAY)
    refusal = Action(code=450, text="4.2.2 the mailbox is full")
    with Smtpd(script=lambda stage, _: refusal if stage == "rcpt" else None) as relay:
        configure(relay.port)
        command(*RUN)
    out = " ".join(command("history").out.split())
    assert "450 4.2.2 the mailbox is full" in out
    assert "ada@example.org" not in out
