"""What somebody types into a name, a scope or a profile costs little, and no cache keeps it."""

import tracemalloc
from collections.abc import Callable
from time import process_time

import pytest
from support.rendering import DAY, NOW, render, token

from token_pipelines.mail import dates, locales, names

MARKS = "a" + "\u0301\u0323" * 2048
"""What normalising takes longest for: marks in the wrong order."""


@pytest.mark.parametrize(
    "typed", [MARKS, "a" + "\u0301\u200b\u0323" * 2048, "a" + "\u0345" * 4096, "\ufdfa" * 4096], ids=ascii
)
def test_clean_costs_little_whatever_is_typed(typed: str) -> None:
    started = process_time()
    for _ in range(50):
        names.clean(typed)
    assert process_time() - started < 1


def test_notice_about_fifty_hostile_tokens_costs_little() -> None:
    tokens = [token(DAY, name=f"{MARKS}{n}", token_id=str(n), scopes=(f"{MARKS}{n}",) * 12) for n in range(50)]
    render([token(DAY)])
    started = process_time()
    render(tokens)
    assert process_time() - started < 5


def test_only_scopes_that_are_shown_are_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned: list[str] = []

    def clean(text: str, *, stand_in: str) -> str:
        cleaned.append(text)
        return text or stand_in

    monkeypatch.setattr("token_pipelines.mail.rendering.clean", clean)
    from token_pipelines.mail.rendering import SCOPES_AT_MOST, _scopes  # noqa: PLC0415 -- after the change

    shown, hidden = _scopes(tuple(f"only-here-{n}" for n in range(1000)))
    assert (len(cleaned), shown.count(","), hidden) == (SCOPES_AT_MOST, SCOPES_AT_MOST - 1, 1000 - SCOPES_AT_MOST)


@pytest.mark.parametrize(
    "look_up",
    [locales.candidates, locales.known, lambda name: dates.instant(NOW, name), lambda name: dates.day(NOW, name)],
    ids=["candidates", "known", "instant", "day"],
)
def test_long_locales_and_zones_are_kept_by_no_cache(look_up: Callable[[str], object]) -> None:
    look_up("warm")
    tracemalloc.start()
    try:
        for number in range(100):
            look_up(f"{number}" + "x" * 1_000_000)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000
