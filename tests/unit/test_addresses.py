"""Which addresses we are willing to put on the wire."""

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from token_pipelines.addresses import canonical, valid_address, wire_address
from token_pipelines.errors import ConfigError
from token_pipelines.mail.addresses import parse_mailbox


@pytest.mark.parametrize(
    "address",
    [
        "ada@example.org",
        "ada.lovelace+tokens@mail.example.co.uk",
        "!#$%&'*+/=?^_`{|}~-@example.org",
        "root@localhost",
        "a@b-c.example",
        "ada@xn--bcher-kva.example",
        "ada@bücher.example",
        "ädä@example.org",
        "用户@例子.广告",
        "ada@straße.de",
        "ada@xn--strae-oqa.de",
        "ada@XN--BCHER-KVA.example",
        "ada@r3---sn.example",
        "x" * 64 + "@example.org",
    ],
)
def test_valid_address_sound(address: str) -> None:
    """Ordinary, international and odd but legal addresses."""
    assert valid_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "a@b.com>\r\nRSET",
        "a@b.com\r\nDATA",
        "a@b.com\n",
        "a@b.com\x00",
        "a@b.com ",
        " a@b.com",
        "a b@b.com",
        "<a@b.com>",
        "Ada <a@b.com>",
        "a@b.com, c@d.com",
        "a@b@c.com",
        "a@",
        "@b.com",
        "",
        "a",
        "a@b",
        ".a@b.com",
        "a.@b.com",
        "a..b@b.com",
        "a@.com",
        "a@b..com",
        "a@b.com.",
        "a@-b.com",
        "a@b-.com",
        "a@b_c.com",
        "a@127.0.0.1",
        "a@[127.0.0.1]",
        '"a b"@b.com',
        "a(comment)@b.com",
        "a\u200b@b.com",
        "a\u2028@b.com",
        "a@💩.la",
        "a@xn--ls8h.la",
        "a@xn--.example",
        "a@bü_cher.example",
        "a@\u0661\u0662.\u05d0\u05d1",
        "a\ud800@b.com",
        "a@b\u3000.com",
        "x" * 65 + "@example.org",
        "é" * 33 + "@example.org",
        "a@" + "x" * 64 + ".org",
        "a@" + "x." * 127 + "org",
        "a" * 60 + "@" + ("x" * 48 + ".") * 4 + "org",
    ],
)
def test_valid_address_unsound(address: str) -> None:
    """Anything that could end a command, name two people, or lead nowhere."""
    assert not valid_address(address)


@pytest.mark.parametrize(
    ("typed", "wire"),
    [
        ("straße.de", "xn--strae-oqa.de"),  # IDNA2003 made strasse.de of it: a stranger's
        ("faß.at", "xn--fa-hia.at"),
        ("βόλος.gr", "xn--nxasmm1c.gr"),
        ("Bücher.EXAMPLE", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("例子。广告", "xn--fsqu00a.xn--4rr70v"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
        ("Example.ORG", "Example.ORG"),
    ],
)
def test_wire_address_domain_is_the_one_that_was_meant(typed: str, wire: str) -> None:
    """By IDNA2008: no letter is taken for another."""
    assert wire_address(f"Ada@{typed}") == f"Ada@{wire}"


@pytest.mark.parametrize(
    ("one", "form"),
    [
        ("Ada@Example.org ", "ada@example.org"),
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("Ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
        ("ada@XN--bcher-KVA.example", "ada@xn--bcher-kva.example"),
        ("Ädä@bücher.example", "Ädä@xn--bcher-kva.example"),
        ("ÄDä@Example.org", "Ädä@example.org"),
        ("A\u0308da\u0308@Example.org", "Ädä@example.org"),
        ("Kate@K\u212alvin.example", "kate@kklvin.example"),
        ("h\u0331H\u0331H@example.org", "\u1e96H\u0331h@example.org"),
        ("no address", "no address"),
        ("ÜX@no domain", "Üx@no domain"),
        ("ü@" + "ü" * 5000, "ü@" + "ü" * 5000),
        ("", ""),
    ],
)
def test_canonical_is_one_form(one: str, form: str) -> None:
    """However its domain is spelt; and what is no address stays as it is, with its ASCII letters in lower case."""
    assert canonical(one) == form
    assert canonical(form) == form


@given(st.text(st.characters(codec="ascii")))
def test_canonical_ascii_as_it_always_was(text: str) -> None:
    """A ledger keeps the hashes of years ago: the form of a plain address never changes."""
    assert canonical(text) == text.strip().lower()


LOOK_ALIKES = [
    character
    for character in map(chr, range(0x80, 0x110000))
    if unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"}
    and {character.lower(), character.upper(), character.casefold(), unicodedata.normalize("NFKC", character)}
    != {character}
]
"""Every character that some function of Unicode's turns into another one, alone or together."""


def spelt_out(text: str) -> str:
    """The text with every accent as a character of its own, in one order, and ASCII letters in lower case.

    Written without `unicodedata.normalize`, which also replaces characters.
    """
    points = "".join(map(_decomposed, text))
    starts = [at for at, point in enumerate(points) if not unicodedata.combining(point)]
    parts = [points[a:b] for a, b in pairwise([0, *starts, len(points)])]
    ordered = "".join(part[:1] + "".join(sorted(part[1:], key=unicodedata.combining)) for part in parts)
    return "".join(each.lower() if each.isascii() else each for each in ordered)


def _decomposed(character: str) -> str:
    if "\uac00" <= character <= "\ud7a3":  # Hangul, whose parts are computed
        return unicodedata.normalize("NFD", character)
    into = unicodedata.decomposition(character)
    if into.startswith("<") or " " not in into:
        return character
    return "".join(_decomposed(chr(int(point, 16))) for point in into.split())


def test_canonical_keeps_apart_what_only_looks_alike() -> None:
    """Whatever Unicode makes of a character, in SMTP it is another one: its address is somebody else's."""
    assert {"\u212a", "\u037e", "\u1fef", "\u2126", "\u212b", "\u0130", "\ufb01", "\u1e9e"} <= {*LOOK_ALIKES}
    others = {each for one in LOOK_ALIKES for each in (one.lower(), one.upper(), unicodedata.normalize("NFKD", one))}
    found: dict[str, str] = {}
    for text in {*LOOK_ALIKES, *others, *map(chr, range(ord("!"), 0x7F))}:
        other = found.setdefault(canonical(f"x.{text}.y@example.org"), text)
        assert spelt_out(other) == spelt_out(text)


SPELT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Co", "Cn", "Zs", "Zl", "Zp"]), max_size=12)


@given(SPELT, st.sampled_from(["Bücher.example", "bu\u0308cher.example", "XN--BCHER-KVA.example"]), st.booleans())
def test_canonical_of_spellings_of_one_address(local: str, domain: str, split: bool) -> None:  # noqa: FBT001 -- drawn
    """Accents apart or not, the case of ASCII letters, the domain in either form."""
    local = unicodedata.normalize("NFC", local)
    other = unicodedata.normalize("NFD", local) if split else local
    assume(valid_address(f"a{local}@example.org"))
    assume(not (local and unicodedata.combining(local[0])))  # an accented A is no ASCII letter: its case counts
    assert canonical(f"a{other}@{domain}") == canonical(f"A{local}@bücher.example")


@given(SPELT, SPELT)
@example("\u212a", "k")
@example("\u212a", "K")
@example("\u212b", "\u00c5")
@example("É", "é")
@example("E\u0301", "e\u0301")
@example("ß", "ss")
@example("\u1fef", "`")
def test_canonical_never_of_two_addresses(one: str, other: str) -> None:
    """One key means: the same characters, but for the case of ASCII letters and for where accents stand."""
    if canonical(f"{one}@example.org") == canonical(f"{other}@example.org"):
        assert spelt_out(one) == spelt_out(other)


def test_canonical_of_capitals_with_accents() -> None:
    assert canonical("E\u0301@example.org") == canonical("É@example.org") != canonical("é@example.org")


@given(SPELT)
def test_canonical_of_a_canonical_address(local: str) -> None:
    once = canonical(f"{local}@example.org")
    assert canonical(once) == once


LOCAL = st.from_regex(r"[a-z0-9]{1,8}([.+_-][a-z0-9]{1,8}){0,3}", fullmatch=True)
DOMAIN = st.from_regex(r"[a-z]{1,8}(\.[a-z]{2,8}){1,3}", fullmatch=True)


@given(LOCAL, DOMAIN)
def test_valid_address_ordinary(local: str, domain: str) -> None:
    """Every ordinary address passes, and goes out as it is."""
    assert wire_address(f"{local}@{domain}") == f"{local}@{domain}"


@given(st.text(st.characters(exclude_categories=())) | st.emails().map(lambda found: found + "\r\nRSET"))
@example("a@b.com>\r\nRSET")
@example("\u2025@b.com")
@example("a@b。com")
@example("a@\u2024com.com")
def test_wire_address_any_text_is_safe_or_refused(text: str) -> None:
    """What passes cannot leave the angle brackets of an SMTP command."""
    try:
        wire = wire_address(text)
    except ValueError:
        return
    assert not set(wire) & set(' <>"(),:;[]\\\r\n\t\0')
    assert not any(unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp", "Zs"} for character in wire)
    assert wire.count("@") == 1
    assert wire.partition("@")[2].isascii()
    assert wire_address(wire) == wire


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("noreply@example.org", "", "noreply@example.org"),
        ("Example Registry <noreply@example.org>", "Example Registry", "noreply@example.org"),
        ('"Example, Inc." <noreply@example.org>', "Example, Inc.", "noreply@example.org"),
        ("Bücherei <noreply@bücher.example>", "Bücherei", "noreply@xn--bcher-kva.example"),
        ("Straße <noreply@straße.example>", "Straße", "noreply@xn--strae-oqa.example"),
    ],
)
def test_parse_mailbox_sound(text: str, name: str, address: str) -> None:
    """One name at most, and one address."""
    assert parse_mailbox(text, "email.from") == (name, address)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Example Registry",
        "Example, Inc. <noreply@example.org>",
        "a@example.org, b@example.org",
        "Example <noreply@example.org",
        "Example <noreply@example.org> more",
        "Group: a@example.org;",
        "Example <ädä@example.org>",
        "Example <>",
        "Example <a b@example.org>",
        "Example <noreply@💩.example>",
        ",, \xa0.<\u2028",  # over which the standard library's parser stumbles, each of these in its own way
        "x@[ ",
        "(" * 20_000,
    ],
)
def test_parse_mailbox_unsound(text: str) -> None:
    """Refused with a sentence that names the key and shows how."""
    with pytest.raises(ConfigError, match=r"^email\.from must be one address, like .*\.$"):
        parse_mailbox(text, "email.from")


@given(
    st.lists(st.sampled_from([*',;:<>()[]"\\@. \t\r\n\xa0\u2028', "=?utf-8?q?x?=", "é", "example.org"])).map("".join)
)
def test_parse_mailbox_anything(text: str) -> None:
    """One address in wire form, or a sentence."""
    try:
        _, address = parse_mailbox(text, "email.from")
    except ConfigError:
        return
    assert wire_address(address) == address
