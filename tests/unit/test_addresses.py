"""Which addresses we are willing to put on the wire."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from token_pipelines.errors import ConfigError
from token_pipelines.mail.addresses import parse_mailbox, valid_address, wire_address


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
    ],
)
def test_parse_mailbox_unsound(text: str) -> None:
    """Refused with a sentence that names the key and shows how."""
    with pytest.raises(ConfigError, match=r"^email\.from must be one address, like .*\.$"):
        parse_mailbox(text, "email.from")
