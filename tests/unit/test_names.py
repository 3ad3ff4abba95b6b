"""User-typed text made safe to show."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from token_pipelines.mail.names import NAME_LIMIT, NO_NAME, clean, unlinked

TEXT = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("ci-deploy", "ci-deploy"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("{{ service }} {% raw %} & \"quotes\" 'too'", "{{ service }} {% raw %} & \"quotes\" 'too'"),
        ("a\r\nBcc: eve@example.org", "a Bcc: eve@example.org"),
        ("tab\tand\vfeed\fand\x85more", "tab and feed and more"),
        ("line\u2028and\u2029paragraph", "line and paragraph"),
        ("\u202egnp.exe\u202c", "gnp.exe"),
        ("zero\u200bwidth\ufeff\u00ad\u2060", "zerowidth"),
        ("nul\x00esc\x1b[31m", "nulesc[31m"),
        ("half \ud83d surrogate \ue000 private \uffff none", "half surrogate private none"),
        ("cafe\u0301", "caf\u00e9"),
        ("e\u200d\u0301", "\u00e9"),
        ("  many \u00a0\u3000 blanks  ", "many blanks"),
        ("\u3164\u2800", NO_NAME),
        ("", NO_NAME),
        (" \r\n\t", NO_NAME),
        (None, NO_NAME),
    ],
)
def test_clean_typed_text(typed: str | None, shown: str) -> None:
    """Nothing invisible stays, and nothing visible goes."""
    assert clean(typed) == shown


def test_clean_piled_up_marks() -> None:
    """Marks that would climb over the lines above are thinned out."""
    assert clean("e" + "\u0316" * 40 + "nd") == "e" + "\u0316" * 4 + "nd"


def test_clean_long_text_at_the_limit() -> None:
    """A name of the limit stays whole; one more is cut, with an ellipsis."""
    assert clean("x" * NAME_LIMIT) == "x" * NAME_LIMIT
    assert clean("x" * (NAME_LIMIT + 1)) == "x" * (NAME_LIMIT - 1) + "…"
    assert clean("abc def", limit=5) == "abc…"


def test_clean_own_stand_in() -> None:
    """The stand-in is the caller's to choose."""
    assert clean(None, stand_in="") == ""


@given(TEXT, st.integers(1, 100))
@example("\u0344" * 50, 10)
@example("\u1100\u1161\u200b\u11a8", 80)
def test_clean_any_text_is_one_visible_line(typed: str, limit: int) -> None:
    """Whatever was typed: one line, within the limit, encodable, and the same when cleaned again."""
    shown = clean(typed, limit, stand_in="?")
    assert 1 <= len(shown) <= limit
    assert shown.split(" ") == shown.split()
    assert unicodedata.is_normalized("NFC", shown)
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert shown.encode()
    assert clean(shown, limit, stand_in="?") == shown


@pytest.mark.parametrize("name", ["ci-deploy", "v1.2", "<script>alert(1)</script>", "release 2026", "a. b", "50% off"])
def test_unlinked_plain_name_is_untouched(name: str) -> None:
    """Only what a mail program would make a link of is changed."""
    assert unlinked(name) == name


@pytest.mark.parametrize(
    "name", ["https://evil.example/login", "//evil.example", "evil.example", "eve@evil.example", "www.evil.example"]
)
def test_unlinked_link_like_name_is_broken_invisibly(name: str) -> None:
    """It reads the same, and no link is left in it."""
    shown = unlinked(name)
    assert shown.replace("\u2060", "") == name
    assert name not in shown
    assert "evil.example" not in shown
    assert "https:" not in shown
