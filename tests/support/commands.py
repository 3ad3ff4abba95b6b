"""The command line: what a command left behind on the terminal, and what it should have said."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.pipeline import DAY, NOW, Registry


@dataclass(frozen=True, kw_only=True)
class Said:
    """Exit status, stdout and stderr."""

    status: int
    out: str
    err: str


Command = Callable[..., Said]
"""The fixture ``command``: ``command("run", "--json")``."""


IN_TWO_DAYS = NOW + 2 * DAY
RUN = ("run", "--json", "--now", "2026-11-20T09:00:00Z")

Configure = Callable[..., Path]


def someone(registry: Registry, name: str = "ada") -> str:
    """Somebody whose token expires in two days."""
    return registry.token(registry.user(name, email=f"{name}@example.org"), expires_at=IN_TWO_DAYS)


def nothing_sent(registry: Registry) -> bool:
    """Whether the ledger, if there is one, says that nothing was sent or tried."""
    [(there,)] = registry.execute("SELECT to_regclass('token_pipelines.notices') IS NOT NULL")
    if not there:
        return True
    tried = "SELECT 1 FROM token_pipelines.notices WHERE state NOT IN ('planned', 'withdrawn') OR attempts > 0"
    return registry.execute(tried) == []


def outcomes(**numbers: Any) -> dict[str, Any]:  # noqa: ANN401 -- numbers and a table
    return {"due": 0, "sent": 0, "deferred": 0, "failed": 0, "unknown": 0, "waiting": 0, "skipped": {}} | numbers


def assert_one_sentence(said: Said) -> None:
    assert "Traceback" not in said.out + said.err
    lines = said.err.splitlines()
    assert len(lines) == 1, said.err
    assert lines[0].endswith((".", "?"))


def mistake(said: Said, status: int) -> str:
    """The sentence of a command that failed."""
    assert_one_sentence(said)
    assert said.status == status
    return str(said.err.removesuffix("\n"))
