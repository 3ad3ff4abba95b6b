"""The bytes that cross the wire, parsed back by the standard library."""

import email as stdlib
from datetime import UTC, datetime, timedelta, timezone
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import strategies as st

from token_pipelines import bounce_address
from token_pipelines.config import Email, Links
from token_pipelines.envelope import Envelope
from token_pipelines.errors import ConfigError
from token_pipelines.mail.message import Serialiser
from token_pipelines.mail.rendering import Content
from token_pipelines.model import Recipient

AT = datetime(2026, 11, 23, 15, 6, 7, tzinfo=timezone(timedelta(hours=1)))
NOTICE = "0198a3c2-7b1e-4000-8000-00000000abcd"
MESSAGE_ID = f"<{NOTICE}@example.org>"
CONTENT = Content(
    subject="Your Example Registry API token expires in 6 days",
    text="Hello Ada,\n\n.a line with a dot\nFrom here on, \u201cnames\u201d \U0001f680 =3D\ntrailing \n"
    + "long " * 400
    + "\n",
    html="<!doctype html>\n<p>\n.dot &amp; \u00e9</p>\n" + "x" * 3000 + "\n",
)
ADA = Recipient(recipient_id="u/1", name="Ada Lovelace", address="ada@example.org")
NASTY = st.text(st.characters(exclude_categories=()), max_size=120) | st.sampled_from(
    ["=?utf-8?q?Evil?=", "a\r\nBcc: eve@example.org", "=?utf-8?q?=0D=0ABcc:_x?=", 'a"b\\c', "a,b;c", "ä" * 90, "\u202e"]
)


def email(sender: str = "Example Registry <noreply@example.org>", **changes: object) -> Email:
    links = Links(manage="https://example.org/tokens", unsubscribe=changes.pop("unsubscribe", None))  # type: ignore[arg-type]
    return Email.model_validate({"from": sender, "service": "Example Registry", "links": links, **changes})


def tag(notice_id: str) -> str:
    return bounce_address.tag(notice_id, b"key")


def made(content: Content = CONTENT, recipient: Recipient = ADA, **changes: object) -> Envelope:
    return Serialiser(email(**changes), tag=tag).envelope(content, recipient, message_id=MESSAGE_ID, at=AT)  # type: ignore[arg-type]


def parsed(envelope: Envelope) -> EmailMessage:
    return stdlib.message_from_bytes(envelope.data, policy=default)


def body(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    content: str = part.get_content()
    return content.replace("\r\n", "\n")


def test_envelope_parsed_back() -> None:
    """The standard library reads what was meant, and nothing more."""
    envelope = made()
    message = parsed(envelope)
    assert (envelope.sender, envelope.recipient) == ("noreply@example.org", "ada@example.org")
    assert {name: str(value) for name, value in message.items() if name != "Content-Type"} == {
        "From": "Example Registry <noreply@example.org>",
        "To": "ada@example.org",
        "Subject": CONTENT.subject,
        "Date": "Mon, 23 Nov 2026 14:06:07 +0000",
        "Message-ID": MESSAGE_ID,
        "Auto-Submitted": "auto-generated",
        "MIME-Version": "1.0",
    }
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert [part["Content-Transfer-Encoding"] for part in message.iter_parts()] == ["quoted-printable"] * 2
    assert body(message, "plain") == CONTENT.text
    assert body(message, "html") == CONTENT.html
    assert not [defect for part in message.walk() for defect in part.defects]


def test_envelope_wire_form() -> None:
    """Seven bits, CRLF only, short lines."""
    data = made(
        Content(subject="Größe " * 30, text=CONTENT.text, html=CONTENT.html), unsubscribe="https://e.org/ü"
    ).data
    assert data.isascii()
    lines = data.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    assert max(map(len, lines)) <= 998
    assert lines[-1] == b""


def test_envelope_same_inputs_same_bytes() -> None:
    """A resend is the same message; another message id is another message."""
    assert made().data == made().data
    other = Serialiser(email()).envelope(CONTENT, ADA, message_id="<other@example.org>", at=AT)
    assert parsed(other).get_boundary() != parsed(made()).get_boundary()


def test_envelope_boundary_in_a_body() -> None:
    """A body that holds the boundary does not end early."""
    boundary = parsed(made()).get_boundary()
    text = f"--{boundary}\n\nforged\n--{boundary}--\n"
    assert body(parsed(made(Content(subject="s", text=text, html="<p>h</p>\n"))), "plain") == text


def test_envelope_one_click() -> None:
    """RFC 8058: one unfolded, unencoded line however long, with the id percent-encoded."""
    link = "https://example.org/" + "unsubscribe/" * 30 + "{recipient_id}?x=<ü>"
    data = made(unsubscribe=link).data
    expected = "https://example.org/" + "unsubscribe/" * 30 + "u%2F1?x=%3C%C3%BC%3E"
    assert f"\r\nList-Unsubscribe: <{expected}>\r\n".encode() in data
    assert b"\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in data


def test_envelope_one_click_needs_https() -> None:
    """A page without TLS is offered, but not for one click."""
    message = parsed(made(unsubscribe="http://localhost:8000/u"))
    assert message["List-Unsubscribe"] == "<http://localhost:8000/u>"
    assert message["List-Unsubscribe-Post"] is None


def test_envelope_monstrous_recipient_id() -> None:
    """A header line that could not be sent is left out."""
    monster = Recipient(recipient_id="ü" * 500, name=None, address="ada@example.org")
    message = parsed(made(recipient=monster, unsubscribe="https://example.org/{recipient_id}"))
    assert message["List-Unsubscribe"] is None
    assert message["List-Unsubscribe-Post"] is None


@pytest.mark.parametrize(
    ("sender", "name"),
    [
        ("noreply@example.org", ""),
        ("Example Registry <noreply@example.org>", "Example Registry"),
        ('"Example, Inc. \\"the\\" (best)" <noreply@example.org>', 'Example, Inc. "the" (best)'),
        ("Bücherei, Köln <noreply@example.org>".replace(",", ""), "Bücherei Köln"),
    ],
)
def test_envelope_sender_name(sender: str, name: str) -> None:
    """Quoted or encoded as it needs, and read back as it was."""
    message = parsed(made(sender=sender, reply_to=sender))
    for header in ("From", "Reply-To"):
        (address,) = message[header].addresses
        assert (address.display_name, address.addr_spec) == (name, "noreply@example.org")


def test_envelope_long_sender_name() -> None:
    """Several encoded words, folded; EmailMessage's own parser puts blanks between them, the RFC does not."""
    name = ("Übung " * 15).strip()
    lines = made(sender=f"{name} <noreply@example.org>").data.decode().split("To: ")[0]
    assert max(map(len, lines.split("\r\n"))) <= 76
    value = lines.removeprefix("From: ").strip().removesuffix("<noreply@example.org>")
    assert str(make_header(decode_header(value))) == name


@given(NASTY, NASTY)
def test_envelope_hostile_words(subject: str, name: str) -> None:
    """No subject, name or id makes another header, ends a body or is decoded to what it was not."""
    recipient = Recipient(recipient_id=name, name=name, address="ada@example.org")
    content = Content(subject=subject, text="text\n", html="<p>html</p>\n")
    envelope = made(content, recipient, unsubscribe="https://example.org/{recipient_id}")
    message = parsed(envelope)
    plain = parsed(made(content=Content(subject="s", text="t\n", html="h\n"), unsubscribe="https://example.org/x"))
    assert set(message.keys()) == set(plain.keys())
    assert len(message.keys()) == len(set(message.keys()))
    assert envelope.data.isascii()
    assert max(map(len, envelope.data.split(b"\r\n"))) <= 998
    assert str(message["Subject"]).isprintable()
    if subject.isascii() and subject.isprintable() and subject.split() and subject.split(" ") == subject.split():
        assert message["Subject"] == subject
    assert body(message, "plain") == "text\n"


@pytest.mark.parametrize("address", ["a@b.com>\r\nRSET", "a@b.com\r\nBcc: c@d.com", "a b@c.com", "", "x@y@z.com"])
def test_envelope_invalid_address(address: str) -> None:
    """Refused, and not repeated in the error."""
    with pytest.raises(ValueError, match=r"^[^>]*$") as caught:
        made(recipient=Recipient(recipient_id="1", name=None, address=address))
    assert not address or address not in str(caught.value)
    with pytest.raises(ValueError, match="valid addresses"):
        Envelope(sender="noreply@example.org", recipient=address, data=b"x\r\n")
    with pytest.raises(ValueError, match="valid addresses"):
        Envelope(sender=address, recipient="ada@example.org", data=b"x\r\n")


@pytest.mark.parametrize("data", [b"a\nb\r\n", b"a\r\n.\nRSET\r\n", b"a\rb\r\n"])
def test_envelope_bare_line_break(data: bytes) -> None:
    """A relay may take a bare line break and a dot for the end of the message."""
    with pytest.raises(ValueError, match="CRLF"):
        Envelope(sender="noreply@example.org", recipient="ada@example.org", data=data)


@pytest.mark.parametrize(
    "message_id", ["", "no-brackets@example.org", "<a@b>\r\nX: y", "<a b@c>", "<a@b@c>", "<ä@b>", "<a>"]
)
def test_envelope_invalid_message_id(message_id: str) -> None:
    """It is the ledger's key to a resend: as given, or not at all."""
    with pytest.raises(ValueError, match="message id"):
        Serialiser(email()).envelope(CONTENT, ADA, message_id=message_id, at=AT)


def test_envelope_international_addresses() -> None:
    """An international domain goes out in ASCII; a local part that is not ASCII goes out as UTF-8."""
    domain = made(recipient=Recipient(recipient_id="1", name=None, address="ada@bücher.example"))
    assert domain.recipient == "ada@xn--bcher-kva.example"
    assert domain.data.isascii()
    local = made(recipient=Recipient(recipient_id="1", name=None, address="ädä@bücher.example"))
    assert local.recipient == "ädä@xn--bcher-kva.example"
    assert "\r\nTo: ädä@xn--bcher-kva.example\r\n".encode() in local.data


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("email.from", {"sender": "Example Registry"}),
        ("email.reply_to", {"reply_to": "a@b.org, c@d.org"}),
        ("email.bounces", {"bounces": "bounces"}),
    ],
)
def test_serialiser_wrong_mailbox(key: str, changes: dict[str, object]) -> None:
    """The configuration is refused before the first email."""
    with pytest.raises(ConfigError, match=rf"^{key} must be one address"):
        Serialiser(email(**changes))  # type: ignore[arg-type]


def test_envelope_instants_in_utc() -> None:
    """The date does not depend on the zone in which the instant was given."""
    one = Serialiser(email()).envelope(CONTENT, ADA, message_id=MESSAGE_ID, at=AT)
    other = Serialiser(email()).envelope(CONTENT, ADA, message_id=MESSAGE_ID, at=AT.astimezone(UTC))
    assert one == other


def test_envelope_bounces() -> None:
    """Each message leaves from an address that proves its notice; what the reader sees stays as it was."""
    envelope = made(bounces="bounces@mail.example.org")
    assert envelope.sender == f"bounces+{tag(NOTICE)}@mail.example.org"
    assert bounce_address.proven(tag(NOTICE), b"key") == NOTICE
    assert envelope.envid == NOTICE
    assert envelope.data == made().data
    assert (made().sender, made().envid) == ("noreply@example.org", None)


def test_envelope_bounces_of_a_foreign_message_id() -> None:
    """An id that is none of the ledger's does not become part of an address."""
    serialiser = Serialiser(email(bounces="bounces@example.org"), tag=tag)
    envelope = serialiser.envelope(CONTENT, ADA, message_id="<!odd.$id@example.org>", at=AT)
    assert (envelope.sender, envelope.envid) == ("bounces@example.org", None)


LONG_DOMAIN = ("x" * 60 + ".") * 3 + "y" * 6
"""Of 189 characters: behind 24 and an @ it makes 214."""


@pytest.mark.parametrize(
    "bounces",
    [
        "Bounces <bounces@example.org>",
        "x" * 25 + "@example.org",
        "x" * 24 + f"@y{LONG_DOMAIN}",
        "b@" + "ü." * 3 + LONG_DOMAIN,
    ],
)
def test_serialiser_wrong_bounces(bounces: str) -> None:
    """No room for an id, before the @ or in all, or a name where there can be none."""
    with pytest.raises(ConfigError, match=r"^email\.bounces must be a plain address with at most 24 characters before"):
        Serialiser(email(bounces=bounces))


def test_envelope_longest_bounces() -> None:
    """What passes at load has room for the longest id."""
    serialiser = Serialiser(email(bounces="x" * 24 + f"@{LONG_DOMAIN}"), tag=tag)
    envelope = serialiser.envelope(CONTENT, ADA, message_id=MESSAGE_ID, at=AT)
    assert envelope.sender == f"{'x' * 24}+{tag(NOTICE)}@{LONG_DOMAIN}"
    assert len(envelope.sender) == 254


def test_envelope_feedback_id() -> None:
    """As given; and only when given."""
    assert parsed(made(feedback_id="token-expiry:example"))["Feedback-ID"] == "token-expiry:example"
    assert parsed(made())["Feedback-ID"] is None


@pytest.mark.parametrize("feedback_id", ["", "two words", "größe", "x\u0085y", "x" * 201])
def test_serialiser_wrong_feedback_id(feedback_id: str) -> None:
    """It goes into a header as it stands."""
    with pytest.raises(ConfigError, match=r"^email\.feedback_id must be ASCII without blanks"):
        Serialiser(email(feedback_id=feedback_id))


@pytest.mark.parametrize("envid", ["", "a b", "a=b", "a+b", "ä", "a\r\nRCPT", "x" * 101])
def test_envelope_invalid_envid(envid: str) -> None:
    """It goes into an SMTP command as it stands."""
    with pytest.raises(ValueError, match="an envelope's id"):
        Envelope(sender="noreply@example.org", recipient="ada@example.org", data=b"x\r\n", envid=envid)
