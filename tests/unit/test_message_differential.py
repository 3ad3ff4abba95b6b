"""Hostile words through the serialiser, read by the standard library and by a parser that shares nothing with it.

``EmailMessage`` is the oracle: what it would have written must read the same as what we wrote.
"""

import email as stdlib
import html
import quopri
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP, default
from random import Random

import fast_mail_parser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

from token_pipelines.config import Email, Links
from token_pipelines.envelope import Envelope
from token_pipelines.errors import ConfigError
from token_pipelines.mail.message import Serialiser
from token_pipelines.mail.mime import quoted_printable, transfer_encoded
from token_pipelines.mail.names import clean
from token_pipelines.mail.rendering import Content
from token_pipelines.model import Recipient

AT = datetime(2026, 11, 23, 14, 6, 7, tzinfo=UTC)
MESSAGE_ID = "<0198a3c2-7b1e-4000-8000-000000000000@example.org>"
HOSTILE = (
    "",
    " ",
    ".",
    "..",
    ".\n.\r\n.",
    ".\r\n.\r\n",
    "\r\n.\r\nMAIL FROM:<eve@example.org>",
    "From eve@example.org Thu Jan  1 00:00:00 1970",
    "From here\nFrom there",
    "a\r\nBcc: eve@example.org",
    "a\nBcc: eve@example.org",
    "a\rBcc: eve@example.org",
    "a\r\n\r\n<b>a body</b>",
    "a\x00b",
    "\x00",
    "esc \x1b[31mred\x1b[0m bell \x07",
    "vertical \x0b form \x0c feed",
    "\x1c\x1d\x1e\x1f",
    "next\x85line",
    "line\u2028separator\u2029paragraph",
    "tab\there\tthere\t",
    "trailing ",
    "trailing \nand again\t\n",
    " leading",
    "  two  blanks  ",
    "\t",
    "=",
    "==",
    "=3D",
    "=\n",
    "soft=\r\nbreak",
    "=?utf-8?q?Evil?=",
    "=?utf-8?b?RXZpbA==?=",
    "=?utf-8?q?=0D=0ABcc:_eve@example.org?=",
    "a =?utf-8?q?b?= =?utf-8?q?c?=",
    "=?unknown?x?y?=",
    "?= =?",
    "_under_score_",
    "a_b=20c",
    '"quoted" \\back\\slash',
    "a,b;c:d<e>f(g)h[i]@j",
    "<eve@example.org>",
    "--=_0123",
    "--boundary--",
    "Content-Type: text/html",
    "\u202eexe.nekot\u202c",
    "\u2066isolate\u2069",
    "\u200bzero\u200cwidth\u200d\u2060\ufeff",
    "soft\u00adhyphen",
    "e\u0301 cafe\u0301",
    "Z\u0351\u036b\u0343\u036a\u0342\u036b\u033d\u034f\u0334\u0319\u0324\u031e\u0349algo",
    "\u0344" * 60,
    "Gr\u00f6\u00dfe \u00c5ngstr\u00f6m \u0130stanbul \u01c5",
    "\u4f60\u597d\uff0c\u4e16\u754c" * 20,
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643",
    "\u05e9\u05dc\u05d5\u05dd",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\u0915\u094d\u0937\u0924\u094d\u0930\u093f\u092f",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7\U0001f1fa",
    "\U0001f980 release \U0001f44d\U0001f3ff",
    "half \ud83d surrogate",
    "\udc80\udcff",
    "\ue000 private \uffff none",
    "\U000e0001\U000e0041 tags",
    "x" * 998,
    "x" * 999,
    "x" * 5000,
    "\u00e9" * 998,
    "\U0001f980" * 400,
    "word " * 300,
    "x" * 74 + " \n",
    "x" * 75 + " \n" + "y" * 76 + "\t\n",
    "\u00e9" * 25 + " \n",
    *(f"{'x' * width}{end}" for width in range(70, 80) for end in (" ", "=", ".", "\u00e9", " \n.", "\r\n.")),
    "{{ 7 * 7 }} {% raw %}",
    "<script>alert(1)</script>",
    "&lt;&amp;&#0;",
    "%00%0d%0aBcc:%20eve@example.org",
    "${jndi:ldap://evil.example/a}",
    "a" + "\u0308" * 500,
    "\ufdfa" * 100,
)
PIECES = (
    *("=?utf-8?q?", "=?utf-8?b?QQ==?=", "?=", "=", "=0D=0A", "=_", "=\r\n", "_"),
    *(
        "\r\n",
        "\n",
        "\r",
        "\r\n\r\n",
        "\r\n.\r\n",
        "\n.",
        "\r\n ",
        "\t",
        " ",
        " \r\n",
        "\x00",
        "\x0b",
        "\x1b",
        "\x85",
        "\u2028",
    ),
    *(
        "Bcc: eve@example.org",
        "Subject: x",
        "Content-Type: text/html",
        "From ",
        "--",
        "--=_",
        "MAIL FROM:<eve@example.org>",
    ),
    *('"', "\\", "<", ">", "(", ")", "@", ",", ";", ":", "&", "%s", "{{", "<script>", "</p>"),
    *("\u202e", "\u2066", "\u200b", "\ufeff", "\u00ad", "\u034f", "\ufe0f", "\U000e0041", "\ud800", "\uffff"),
    *(
        "e\u0301",
        "\u0344",
        "\u0316" * 9,
        "\u0915\u094d\u0937",
        "\u0e33",
        "\u1100\u1161",
        "\U0001f1e9",
        "\U0001f44d\U0001f3ff",
    ),
    *("\u00e9", "\u4f60\u597d", "\u05e9\u05dc", "\ufdfa", "\U0001f980", "x" * 75, "\u00e9" * 40, "word " * 16, "a"),
)
COMBINED = tuple(
    "".join(chooser.choice(PIECES) for _ in range(chooser.randint(2, 12)))
    for chooser in [Random(20261123)]  # noqa: S311 -- the same strings each time, no secret
    for _ in range(300)
)
"""Hostile pieces put together, the same each time."""

WORDS = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=300),
    st.text(st.sampled_from(" \t\r\n.=?_-\u00e9\u202e\U0001f980x"), max_size=300),
    st.lists(st.sampled_from(HOSTILE), max_size=4).map("".join),
)


def writer(**changes: str) -> Serialiser:
    links = Links(manage="https://example.org/", unsubscribe="https://example.org/u/{recipient_id}")
    ordinary = {"from": "Example Registry <noreply@example.org>", "service": "Example Registry", "links": links}
    return Serialiser(Email.model_validate({**ordinary, **changes}))


def made(words: str) -> tuple[Content, Envelope]:
    """A message that has these words wherever a user's words can be."""
    content = Content(subject=words, text=f"Hello {words}\n{words}\n", html=f"<p>{html.escape(words)}</p>\n{words}\n")
    recipient = Recipient(recipient_id=words, name=words, address="ada@example.org")
    return content, writer().envelope(content, recipient, message_id=MESSAGE_ID, at=AT)


def lines_of(text: str) -> str:
    """As any parser may give it back: line ends of one kind, and no half characters."""
    return text.encode(errors="replace").decode().replace("\r\n", "\n").replace("\r", "\n")


def oracle(content: Content) -> bytes:
    """What the standard library would have written."""
    # One long line: folded, a word of 70 letters gets a blank before it that nobody wrote.
    message = EmailMessage(policy=SMTP.clone(cte_type="7bit", max_line_length=998))
    message["Subject"] = clean(content.subject, 200)
    message.set_content(lines_of(content.text), cte="quoted-printable")
    message.add_alternative(lines_of(content.html), subtype="html", cte="quoted-printable")
    return message.as_bytes()


def by_stdlib(data: bytes) -> tuple[str, str, str]:
    message = stdlib.message_from_bytes(data, policy=default)
    assert not [defect for part in message.walk() for defect in part.defects]
    assert [part.get_content_type() for part in message.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    plain, rich = (part.get_content() for part in message.iter_parts())
    return str(message["Subject"]), lines_of(plain), lines_of(rich)


def by_another(data: bytes) -> tuple[str, str, str]:
    message = fast_mail_parser.parse_email(data)
    assert message.warnings == []
    assert message.attachments == []
    (plain,), (rich,) = message.text_plain, message.text_html
    return message.subject, lines_of(plain), lines_of(rich)


def check(words: str) -> None:
    content, envelope = made(words)
    expected = (clean(words, 200), lines_of(content.text), lines_of(content.html))
    assert by_stdlib(envelope.data) == expected
    assert by_another(envelope.data) == expected
    if "=?" not in words:  # the standard library leaves that as it is, and decodes what it did not encode
        assert by_stdlib(oracle(content)) == expected
        assert by_another(oracle(content)) == expected
    check_wire(envelope.data)


def check_wire(data: bytes) -> None:
    """Seven bits, CRLF only, no line too long; the header fields that we write, once each, and one-click unfolded."""
    assert data.isascii()
    lines = data.split(b"\r\n")
    assert not [line for line in lines if b"\r" in line or b"\n" in line or b"\0" in line]
    assert max(map(len, lines)) <= 998
    head = lines[: lines.index(b"")]
    names = [line.partition(b":")[0].decode() for line in head if not line.startswith(b" ")]
    optional = {"List-Unsubscribe", "List-Unsubscribe-Post"}
    assert [name for name in names if name not in optional] == [
        *("From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type")
    ]
    assert set(names) & optional in (set(), optional)
    for line, following in zip(head, [*head[1:], b""], strict=True):
        if line.startswith(b"List-"):
            assert b"=?" not in line
            assert not following.startswith(b" ")
        elif b"=?" in line:
            assert len(line) <= 76


@pytest.mark.parametrize("words", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_words_pinned(words: str) -> None:
    check(words)


def test_hostile_words_combined() -> None:
    """Several hundred, none twice, and none among the others."""
    assert len({*COMBINED} - {*HOSTILE}) == len(COMBINED) == 300
    for words in COMBINED:
        check(words)


@settings(max_examples=examples(150))
@given(WORDS)
def test_hostile_words_found(words: str) -> None:
    check(words)


@pytest.mark.parametrize(
    ("words", "encoding"),
    [
        ("Hello Ada,\n\n\tsee https://example.org/?a=b\n", b"7bit"),
        (f"{'x' * 998}\n{'x' * 998}\n", b"7bit"),
        (f"{'x' * 998}\n{'x' * 999}\n", b"quoted-printable"),
        ("Hello J\u00f6rg,\n", b"quoted-printable"),
        ("a blank \nthat a relay may drop\n", b"quoted-printable"),
        ("a tab\t\n", b"quoted-printable"),
        ("--=_a boundary\n", b"quoted-printable"),
        ("a bell\a\n", b"7bit"),
        ("a zero\0\n", b"quoted-printable"),
        ("a return\r\n", b"quoted-printable"),
        ("no end", b"quoted-printable"),
    ],
)
def test_transfer_encoding_is_7bit_where_nobody_would_touch_the_text(words: str, encoding: bytes) -> None:
    found, data = transfer_encoded(words)
    assert found == encoding
    decoded = data if found == b"7bit" else quopri.decodestring(data)
    assert decoded == lines_of(words).replace("\n", "\r\n").encode()
    assert max(map(len, data.split(b"\r\n"))) <= (998 if found == b"7bit" else 76)


@settings(max_examples=examples(150))
@given(WORDS)
def test_quoted_printable_is_exact(words: str) -> None:
    """Decoded by a third reader of the standard library's, also without a line end, and never a boundary."""
    encoded = quoted_printable(words)
    assert quopri.decodestring(encoded) == lines_of(words).replace("\n", "\r\n").encode()
    assert encoded.isascii()
    assert max(map(len, encoded.split(b"\r\n"))) <= 76
    assert not [line for line in encoded.split(b"\r\n") if line.startswith((b"--=_", b"=_")) or line.endswith(b" ")]


@settings(max_examples=examples(150))
@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=150))
def test_hostile_sender_name(name: str) -> None:
    """An operator's own name, whatever it is, is one name before one address."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    try:
        serialiser = writer(**{"from": f'"{quoted}" <noreply@example.org>'})
    except (ValueError, ConfigError):
        return
    recipient = Recipient(recipient_id="1", name=None, address="ada@example.org")
    envelope = serialiser.envelope(
        Content(subject="s", text="t\n", html="h\n"), recipient, message_id=MESSAGE_ID, at=AT
    )
    check_wire(envelope.data)
    found = fast_mail_parser.parse_email(envelope.data).from_
    assert found is not None
    assert (found.display_name or "", found.address) == (clean(name, 100, stand_in=""), "noreply@example.org")


@pytest.mark.parametrize(
    "address",
    ["ada@example.org", "ada+b@example.org", "o'brien=x@example.org", "{a}|b~c@example.org", "ada@b\u00fccher.example"],
)
def test_hostile_but_legal_address(address: str) -> None:
    """Both parsers read the one address that was meant."""
    recipient = Recipient(recipient_id="1", name="Eve, <eve@example.org>", address=address)
    envelope = writer().envelope(Content(subject="s", text="t\n", html="h\n"), recipient, message_id=MESSAGE_ID, at=AT)
    message = stdlib.message_from_bytes(envelope.data, policy=default)
    assert [found.addr_spec for found in message["To"].addresses] == [envelope.recipient]
    assert [found.address for found in fast_mail_parser.parse_email(envelope.data).to] == [envelope.recipient]
