"""No words of anybody's, wherever they come in, make a header, a part, a recipient or a link."""

import email as stdlib
import re
from datetime import UTC, datetime, timedelta
from email.policy import default
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support.examples import examples

from token_pipelines.addresses import valid_address
from token_pipelines.config import Email, Links
from token_pipelines.envelope import Envelope
from token_pipelines.errors import ConfigError, TokenPipelinesError
from token_pipelines.mail.message import Serialiser
from token_pipelines.mail.rendering import Renderer
from token_pipelines.model import Recipient, TokenFacts

TEMPLATES = Path(__file__).parents[2] / "templates"
NOW = datetime(2026, 11, 23, 14, 6, tzinfo=UTC)
INJECTIONS = (
    "x\r\nBcc: eve@evil.example",
    "x\nBcc: eve@evil.example",
    "x\r\n\r\n<script src=https://evil.example/></script>",
    "\r\n.\r\nMAIL FROM:<eve@evil.example>\r\n",
    "--=_\r\nContent-Type: text/html\r\n\r\n<a href=https://evil.example>",
    "=?utf-8?q?x?=\r\n =?utf-8?q?=0D=0ABcc:_eve@evil.example?=",
    "x\u2028Bcc: eve@evil.example",
    "x\x85Bcc: eve@evil.example",
    "x\x00\x0b\x0c\x1c\x1d\x1e",
    "<img src=x onerror=alert(1)>",
    "\" onmouseover=alert(1) x='",
    "javascript:alert(1)",
    "https://evil.example/login",
    "\u202ehttps://evil.example\u202c",
    "{{ manage }} {% include '/etc/passwd' %}",
    "a@b.example>\r\nRCPT TO:<eve@evil.example",
)
WORDS = st.one_of(
    st.sampled_from(INJECTIONS),
    st.lists(st.sampled_from([*INJECTIONS, "\r\n", "\n", ": ", "Bcc", "é", "\ud800"]), max_size=4).map("".join),
    st.text(st.characters(exclude_categories=()), max_size=120),
)


class Page(HTMLParser):
    """The elements, their attributes' names and the links of an HTML part."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]


def email(**changes: object) -> Email:
    links = Links(
        renew="https://example.org/new?from={token_id}",
        manage="https://example.org/tokens",
        unsubscribe="https://example.org/u/{recipient_id}",
    )
    ordinary = {"from": "Example <noreply@example.org>", "service": "Example", "links": links}
    return Email.model_validate({**ordinary, "bounces": "bounces@example.org", **changes})


RENDERER, SERIALISER = Renderer(TEMPLATES, email()), Serialiser(email())


def letter(
    words: str, *, renderer: Renderer = RENDERER, serialiser: Serialiser = SERIALISER, address: str = "ada@example.org"
) -> Envelope:
    """A notice in which every word that a user can choose is this one."""
    recipient = Recipient(recipient_id=words, name=words, address=address, locale=words, timezone=words)
    token = TokenFacts(
        token_id=words,
        name=words,
        scopes=(words, words),
        created_at=NOW - timedelta(days=80),
        last_used_at=NOW - timedelta(days=1),
        expires_at=NOW + timedelta(days=6, hours=2),
    )
    content = renderer.render(recipient, [token], now=NOW)
    return serialiser.envelope(content, recipient, message_id="<0198a3c2-7b1e@example.org>", at=NOW)


def prose(text: str) -> list[str]:
    """The lines of a text part that hold no words of a user's; of links, where they lead."""
    lines = [line for line in text.splitlines() if not line.startswith(("Hello", "  "))]
    return [re.sub(r"(?<=/u/).*", "", line) for line in lines]


def check(envelope: Envelope, plain: Envelope) -> None:
    """The same message as one with harmless words, save for the words."""
    message = stdlib.message_from_bytes(envelope.data, policy=default)
    expected = stdlib.message_from_bytes(plain.data, policy=default)
    long = {"List-Unsubscribe", "List-Unsubscribe-Post"}  # left out together when an id is too long for a line
    assert [name for name in message if name not in long] == [name for name in expected if name not in long]
    assert {name: message[name] for name in ("From", "To", "Subject", "Reply-To")} == {
        name: expected[name] for name in ("From", "To", "Subject", "Reply-To")
    }
    assert (envelope.sender, envelope.recipient) == (plain.sender, plain.recipient)
    assert [part.get_content_type() for part in message.walk()] == [part.get_content_type() for part in expected.walk()]
    text, html = (part.get_content() for part in message.iter_parts())
    page, plain_page = Page(html), Page(list(expected.iter_parts())[1].get_content())
    assert page.tags <= plain_page.tags
    assert page.attributes <= plain_page.attributes
    assert [re.sub(r"[?#].*|(?<=/u/).*", "", link) for link in page.links] == [
        re.sub(r"[?#].*|(?<=/u/).*", "", link) for link in plain_page.links
    ]
    words = re.sub(r"https://example\.org/\S*", "", html)  # there, anything is percent-encoded
    assert re.search(r"evil\.example|eve@|https://", words) is None
    assert re.search(r"[\u202a-\u202e\u2066-\u2069\u200b\0]", text + html) is None
    # The text has the words as they are, after the greeting and between the lines of a token, which are indented.
    assert prose(text) == prose(next(expected.iter_parts()).get_content())


@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.too_slow])
@given(WORDS)
@example(INJECTIONS[0])
def test_users_words(words: str) -> None:
    """A token's name, its scopes and id, a person's name and id, their locale and time zone."""
    check(letter(words), letter("plain"))


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.too_slow])
@given(WORDS)
def test_address(address: str) -> None:
    """An address is one address, or there is no letter."""
    if not valid_address(address):
        with pytest.raises(ValueError, match=r"^[a-z ,:@]+$"):  # which does not repeat it
            letter("plain", address=address)
        return
    envelope = letter("plain", address=address)
    message = stdlib.message_from_bytes(envelope.data, policy=default)
    assert [found.addr_spec for found in message["To"].addresses] == [envelope.recipient]
    assert re.fullmatch(r"[^\s<>\x00-\x20]+@[!-~]+", envelope.recipient)


@pytest.mark.parametrize("key", ["service", "from", "reply_to", "bounces", "feedback_id"])
@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.too_slow])
@given(words=WORDS)
def test_config(key: str, words: str) -> None:
    """What the operator's file says is refused in one sentence, or stays where it belongs."""
    try:
        changed = email(**{key: words if key != "from" else f"{words} <noreply@example.org>"})
        renderer = Renderer(TEMPLATES, changed) if key == "service" else RENDERER  # the others it never sees
        serialiser = Serialiser(changed)
    except (ValidationError, ConfigError):
        return
    envelope = letter("plain", renderer=renderer, serialiser=serialiser)
    message = stdlib.message_from_bytes(envelope.data, policy=default)
    assert set(message.keys()) - {"Reply-To", "Feedback-ID"} == set(
        stdlib.message_from_bytes(letter("plain").data, policy=default).keys()
    )
    assert len(message.keys()) == len(set(message.keys()))
    assert max(map(len, envelope.data.split(b"\r\n"))) <= 998


@pytest.mark.parametrize("link", ["renew", "manage", "unsubscribe"])
@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.too_slow])
@given(words=WORDS)
def test_config_links(link: str, words: str) -> None:
    """A link template with anything in it is refused, or is percent-encoded into one link."""
    try:
        links = Links.model_validate({"manage": "https://example.org/", link: f"https://example.org/{words}"})
        changed = email(links=links)
        renderer, serialiser = Renderer(TEMPLATES, changed), Serialiser(changed)
    except (ValidationError, TokenPipelinesError):
        return
    envelope = letter("plain", renderer=renderer, serialiser=serialiser)
    message = stdlib.message_from_bytes(envelope.data, policy=default)
    page = Page(list(message.iter_parts())[1].get_content())
    assert "onerror" not in page.attributes | page.tags
    assert all(re.fullmatch(r"https://example\.org/[!-~]*", found) for found in page.links)
    if link == "unsubscribe":
        assert re.fullmatch(r"<https://example\.org/[!-;=?-~]*>", str(message["List-Unsubscribe"]))
