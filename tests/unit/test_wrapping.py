"""Wrapped text."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from token_pipelines.mail.wrapping import TEXT_WIDTH, hanging, paragraph

WORDS = st.lists(st.text("abc-é日", min_size=1, max_size=90))


@given(WORDS, st.integers(0, 40))
def test_hanging_keeps_every_word_and_fills_each_line(words: list[str], columns: int) -> None:
    lines = hanging(" ".join(words), columns).split("\n" + " " * columns)
    assert [word for line in lines for word in line.split()] == words
    room = TEXT_WIDTH - columns
    assert all(len(line) <= room or " " not in line for line in lines)
    for line, following in pairwise(lines):
        assert len(f"{line} {following.split()[0]}") > room


@pytest.mark.parametrize("word", ["https://example.org/" + "x" * 100, "a-b-" * 30])
def test_hanging_long_word_stays_whole(word: str) -> None:
    assert hanging(f"see {word} there", 4) == f"see\n    {word}\n    there"


def test_paragraph_joins_lines_and_ends_in_one_break() -> None:
    assert paragraph("\n one\n  two\n\n") == "one two\n"


def test_hanging_goes_on_at_its_column() -> None:
    assert hanging("one two " * 8, 40) == ("one two " * 4).strip() + "\n" + " " * 40 + ("one two " * 4).strip()
