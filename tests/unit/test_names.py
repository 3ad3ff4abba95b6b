"""User-typed text made safe to show."""

import sys
import unicodedata

import pytest
import regex
from hypothesis import example, given
from hypothesis import strategies as st
from linkify_it import LinkifyIt

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
        ("\ufe0f", NO_NAME),
        ("\u034f", NO_NAME),
        ("\u17b4\u17b5", NO_NAME),
        ("\u180b \u180f", NO_NAME),
        ("\U000e0100", NO_NAME),
        ("\u0301\u20dd", NO_NAME),  # marks with nothing to stand on
        ("\U0001d159", NO_NAME),
        ("c\u034fi\u17b4-\u180bd\ufe00e\U000e01efploy", "ci-deploy"),
        ("e\u034f\u0301", "\u00e9"),
        ("\u2764\ufe0f \u2764\ufe0e 1\ufe0f\u20e3", "\u2764\ufe0f \u2764\ufe0e 1\ufe0f\u20e3"),
        ("\u2764\ufe0f\ufe0f\u200d\ufe0e", "\u2764\ufe0f"),
        ("a \ufe0fb\u0301\u0301\ufe0f", "a b\u0301\u0301"),
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
    assert clean("e" + "\u0316\u200d" * 40 + "nd") == "e" + "\u0316" * 4 + "nd"
    assert clean("a" + "\u0903" * 40) == "a" + "\u0903" * 8


@pytest.mark.parametrize(
    "word",
    [
        "\u1000\u103c\u103d\u103e\u102d\u102f\u1037",  # Burmese, one consonant with all that it can carry
        "\u0915\u094d\u0937\u0924\u094d\u0930\u093f\u092f",
        "\u05d1\u05b0\u05bc\u05e8\u05b5\u05d0\u05e9\u05b4\u05c1\u05d9\u05ea",  # Hebrew with points
        "\u0e17\u0e35\u0e48\u0e19\u0e35\u0e48",
        "Ti\u1ebfng Vi\u1ec7t",
    ],
)
def test_clean_honest_marks(word: str) -> None:
    """Scripts that need many marks keep them."""
    assert clean(word) == unicodedata.normalize("NFC", word)


def test_clean_long_text_at_the_limit() -> None:
    """A name of the limit stays whole; one more is cut, with an ellipsis."""
    assert clean("x" * NAME_LIMIT) == "x" * NAME_LIMIT
    assert clean("x" * (NAME_LIMIT + 1)) == "x" * (NAME_LIMIT - 1) + "…"
    assert clean("abc def", limit=5) == "abc…"


@pytest.mark.parametrize(
    ("typed", "limit", "shown"),
    [
        ("\U0001f1e9\U0001f1ea" * 3, 3, "\U0001f1e9\U0001f1ea" * 3),
        ("\U0001f1e9\U0001f1ea" * 4, 3, "\U0001f1e9\U0001f1ea" * 2 + "…"),
        ("\U0001f44d\U0001f3ff" * 4, 3, "\U0001f44d\U0001f3ff" * 2 + "…"),
        ("x\u0316" * 3, 3, "x\u0316" * 3),
        ("x\u0316" * 4, 3, "x\u0316" * 2 + "…"),
        ("\u0e01\u0e33" * 4, 3, "\u0e01\u0e33" * 2 + "…"),
        ("\u1100\ua960\u1160" * 2, 3, "\u1100\ua960 \u1100\ua960"),
        ("ab\u0915\u094d\u0937x", 4, "ab\u0915\u094d\u0937x"),  # two letters joined into one
        ("ab\u0915\u094d\u0937xy", 4, "ab\u0915\u094d\u0937…"),
        ("ab\u0c95\u0ccd\u0cb7xy", 4, "ab…"),  # Kannada: Unicode divides them, and half of them would mislead
        ("\u0915\u094d" * 9, 4, "…"),
        ("x\u0316\u0317\u0318" * 2 + "yz", 5, "x\u0316\u0317\u0318" * 2 + "yz"),
        ("x\u0316\u0317\u0318" * 2 + "y\u0316z", 5, "x\u0316\u0317\u0318" * 2 + "…"),
        ("x\u0316\u0317\u0318\u0319" * 80, 80, "x\u0316\u0317\u0318\u0319" * 31 + "…"),
    ],
)
def test_clean_long_text_as_a_reader_counts(typed: str, limit: int, shown: str) -> None:
    """What is read as one character counts once, and is never cut in two."""
    assert clean(typed, limit) == shown


def test_clean_own_stand_in() -> None:
    """The stand-in is the caller's to choose."""
    assert clean(None, stand_in="") == ""


EVERYTHING = "".join(map(chr, range(sys.maxunicode + 1)))
INVISIBLE = set(regex.findall(r"\p{Default_Ignorable_Code_Point}", EVERYTHING))
INVISIBLE -= {"\ufe0e", "\ufe0f"}
"""Held against Unicode's own property, save for what makes an emoji of a sign."""


@given(TEXT | st.text(st.sampled_from(sorted(INVISIBLE))), st.integers(1, 100))
@example("\ufe0f", 80)
@example("1\ufe0f\u20e3" * 50, 10)
@example("\u0344" * 50, 10)
@example("\u1100\u1161\u200b\u11a8", 80)
@example("\u1100" * 200 + "\U0001f3ff" * 200, 5)
def test_clean_any_text_is_one_visible_line(typed: str, limit: int) -> None:
    """Whatever was typed: one line, within the limit, encodable, and the same when cleaned again."""
    shown = clean(typed, limit, stand_in="?")
    assert 1 <= len(regex.findall(r"\X", shown)) <= limit
    assert len(shown) <= limit * 2
    assert not INVISIBLE & set(shown)
    assert any(unicodedata.category(character)[0] not in "MZ" for character in shown)
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
    "top", ["भारत", "বাংলা", "சிங்கப்பூர்", "ලංකා", "ಭಾರತ", "ไทย", "рф", "中国", "c\ufe0fom", "\ufe0fcom", "السعودية"]
)
@pytest.mark.parametrize("dot", [".", "\u3002", "\uff0e", "\uff61"])
def test_unlinked_domain_in_any_script(top: str, dot: str) -> None:
    """The second character of a domain may be a mark."""
    shown = unlinked(clean(f"evil{dot}{top}"))
    assert f"\u2060{dot}\u2060" in shown


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


LINKS = LinkifyIt({}, {"fuzzy_link": True, "fuzzy_email": True, "fuzzy_ip": True})
PIECES = (
    *(
        "https",
        "http",
        "ftp",
        "mailto",
        "tel",
        "//",
        "://",
        ":",
        ".",
        "@",
        "www",
        "evil",
        "example",
        "com",
        "org",
        "рф",
    ),
    *(
        "xn--p1ai",
        "de",
        "1",
        "127.0.0.1",
        "/",
        "?",
        "#",
        "-",
        " ",
        "(",
        ")",
        "ü",
        "\uff0e",
        "\u3002",
        "\u2060",
        "\u200b",
    ),
)
LINK_LIKE = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@given(LINK_LIKE | TEXT)
@example("mailto:eve@evil.example")
@example("http:evil.example")
@example("EVIL.EXAMPLE")
@example("https\u200b://evil.example")
@example("tel:+15551234567")
@example("evil.भारत")
@example("http://evil.சிங்கப்பூர்")
def test_unlinked_nothing_is_linked(typed: str) -> None:
    """Held against linkify-it, which is what many mail programs and web mailers use, with all that it can guess."""
    shown = unlinked(clean(typed, 400))
    assert not LINKS.match(shown)
    assert shown.replace("\u2060", "") == clean(typed, 400)
