"""Wrapped text, held against the standard library's slower hand."""

import textwrap

from hypothesis import given
from hypothesis import strategies as st

from token_pipelines.mail.wrapping import hanging, paragraph, wrapped

WORDS = st.lists(st.text("abc-é日", min_size=1, max_size=30))


@given(WORDS, st.integers(1, 80))
def test_wrapped_as_textwrap_does(words: list[str], width: int) -> None:
    text = " ".join(words)
    assert wrapped(text, width) == textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def test_paragraph_joins_lines_and_ends_in_one_break() -> None:
    assert paragraph("\n one\n  two\n\n") == "one two\n"


def test_hanging_goes_on_at_its_column() -> None:
    assert hanging("one two " * 8, 40) == ("one two " * 4).strip() + "\n" + " " * 40 + ("one two " * 4).strip()
