"""Nobody's address stays in what a relay said, and what it said can still be read."""

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from token_pipelines.model import Stage
from token_pipelines.smtp.redaction import LOGIN_PART, Secrets, redacted
from token_pipelines.smtp.session import reply

ADA = "ada.lovelace@example.org"


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("<ada.lovelace@example.org>: no such user", "<address>: no such user"),
        ("ADA.Lovelace@Example.ORG unknown", "<address> unknown"),
        ("ada.lovelace... User unknown", "<address>... User unknown"),  # Sendmail
        ("mailbox ada.lovelace is closed to you", "mailbox <address> is closed to you"),
        ("no mailbox here by that name: Ada.Lovelace", "no mailbox here by that name: <address>"),
        ("unknown user: <ada.lovelace>.", "unknown user: <address>."),
        ('user "ada.lovelace", /var/mail/ada.lovelace', 'user "<address>", /var/mail/<address>'),
        ("ada.lovelace@ example.org is full", "<address> is full"),
        ("ada.lovelace @example.org is full", "<address> is full"),
        ("ada.lovelace+40example.org is full", "<address> is full"),
        ("ada.lovelace=40example.org is full", "<address> is full"),
        ("ada.lovelace=example.org is full", "<address> is full"),
        ("ada.lovelace at example.org is full", "<address> is full"),
        ("ada.lovelace(at)example.org is full", "<address> is full"),
        ("ada.lovelace&#64;example.org is full", "<address> is full"),
        ("see https://help.example/?p=ada.lovelace%40example.org", "see https://help.example/?p=<address>"),
        ("ada.lovelace@mail.internal, forwarded to someone.else@example.net", "<address>, forwarded to <address>"),
        ("ada.lovelace+more is full", "<address> is full"),
        ("ada.lovelaces, ada.lovelace.king, x-ada.lovelace", "ada.lovelaces, ada.lovelace.king, x-ada.lovelace"),
        ("Host or domain name not found: example.org", "Host or domain name not found: example.org"),
        ("nothing of the kind", "nothing of the kind"),
    ],
)  # fmt: skip
def test_redacted_whole_and_bare(said: str, left: str) -> None:
    """In full, torn apart, encoded, and the name alone; no longer word that holds it, and no bare domain."""
    assert redacted(said, [ADA]) == left


@pytest.mark.parametrize(
    ("address", "said", "left"),
    [
        ("ada+tokens@example.org", "ada+tokens unknown, ada unknown", "<address> unknown, <address> unknown"),
        ("o'brien@example.org", "O'Brien unknown, o%27brien too", "<address> unknown, <address> too"),
        ("o'brien@example.org", "O'Brien@example.org unknown", "<address> unknown"),
        ('"ada l"@example.org', 'user ada l, "ada l", "ada l"@example.org', "user <address>, <address>, <address>"),
        ("ädä@example.org", "ÄDÄ unknown, %C3%A4d%C3%A4@example.org", "<address> unknown, <address>"),
        ("a.(b@example.org", "a.(b unknown", "<address> unknown"),
        ("mailer-login", "no: mailer-login", "no: <address>"),
        ("@example.org", "nobody at example.org", "nobody at example.org"),
        ("", "nobody", "nobody"),
    ],
)
def test_redacted_odd_names(address: str, said: str, left: str) -> None:
    assert redacted(said, [address]) == left


@pytest.mark.parametrize(
    ("name", "said", "left"),
    [
        # Two and three letters are somebody's name, where they are not a word.
        ("li", "li... User unknown in the list", "<address>... User unknown in the list"),
        ("bob", "Bob is full, bobby is not", "<address> is full, bobby is not"),
        ("x", "no x here, nor in max", "no <address> here, nor in max"),
        # Words and roles by themselves tell of nobody.
        ("user", "User unknown", "User unknown"),
        ("info", "info... User unknown", "info... User unknown"),
        ("the", "not the right mailbox", "not the right mailbox"),
        ("a", "not a mailbox", "not a mailbox"),
        ("no-reply", "no-reply is closed", "no-reply is closed"),
        # With their domain they are addresses like any other.
        ("user", "User unknown: <user@example.org>, user@ example.org", "User unknown: <address>, <address>"),
        ("info", "info+40example.org unknown", "<address> unknown"),
    ],
)
def test_redacted_short_and_ordinary_names(name: str, said: str, left: str) -> None:
    assert redacted(said, [f"{name}@example.org"]) == left


@pytest.mark.parametrize("name", ["5.1.1", "5", "1", "550", "5.1"])
def test_reply_code_survives_a_name_like_it(name: str) -> None:
    found = reply(Stage.RCPT, 550, b"5.1.1 no such user", hide=[f"{name}@example.org"])
    assert (found.code, found.enhanced, found.text) == (550, "5.1.1", "5.1.1 no such user")


@pytest.mark.parametrize("name", ["2.0.0", "queued", "as", "ok", "2", "Ok:", "mike"])
def test_reply_queue_id_survives_a_name_like_its_words(name: str) -> None:
    found = reply(Stage.DOT, 250, b"2.0.0 Ok: queued as 4fXyZ01abc", hide=[f"{name}@example.org"])
    assert (found.enhanced, found.queue_id) == ("2.0.0", "4fXyZ01abc")


@pytest.mark.parametrize("after", [b"<ada.lovelace@example.org>", b"ada.lovelace", b"x@y.example"])
def test_reply_queue_id_is_no_address(after: bytes) -> None:
    """Some name a message after whom it is for."""
    found = reply(Stage.DOT, 250, b"queued as " + after, hide=[ADA])
    assert (found.text, found.queue_id) == ("", None)


WORD = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=3, max_size=12)
NAMES = st.builds("{}{}{}".format, WORD, st.sampled_from([".", "_", "-", "+", "'"]), WORD)
BEFORE = st.sampled_from(["", "<", '"', "user ", "to=", "/", "(", "mailbox:"])
AFTER = st.sampled_from(["", ">", '"', "... unknown", " is full", ")", ", no", "@ example.org", "+40example.org", "."])


@given(NAMES, BEFORE, AFTER)
def test_redacted_leaves_nothing_of_a_name(name: str, before: str, after: str) -> None:
    line = redacted(f"5.1.1 {before}{name.upper()}{after}", [f"{name}@example.org"])
    assert name.lower() not in line.lower()
    assert line.startswith(f"5.1.1 {before.removesuffix('<')}<address>")


@pytest.mark.parametrize(
    "torn",
    [
        "ada\u200b.lovelace@example.org",
        "ada.lovelace@exam\u00adple.org",
        "ada.lovelace\u2060@\ufeffexample.org",
        "ada.love\x00lace@example.org",
        "ada.love\x1blace@example.org",
        "a\ufe0fda.lovelace@example.org",
        "ada.lovelace@exa\u3164mple.org",
        "ada.\u202elovelace\u202c@example.org",
        "ada.lovelace\uff20example.org",
        "ada.lovelace\ufe6bexample.org",
        "ada.love\u200blace",
    ],
)
@pytest.mark.parametrize("hide", [[ADA], []])
def test_reply_with_an_address_that_invisible_characters_tear(torn: str, hide: list[str]) -> None:
    """A person reads it as if they were not there; only the bare name needs to be known."""
    found = reply(Stage.RCPT, 550, f"5.1.1 <{torn}>: no such user".encode(), hide=hide)
    if hide or "example" in torn:
        assert found.text == "5.1.1 <address>: no such user"


def test_reply_keeps_what_can_be_seen() -> None:
    """Accents, other scripts; and a line break or a tab is a blank."""
    found = reply(
        Stage.RCPT, 550, "5.1.1 Empfa\u0308nger\tunbekannt\n\u5b9b\u5148\u304c\u3042\u308a\u307e\u305b\u3093".encode()
    )
    assert found.text == "5.1.1 Empfa\u0308nger unbekannt \u5b9b\u5148\u304c\u3042\u308a\u307e\u305b\u3093"


LOGIN_CASES = [
    ("mailer", "s3cret-w0rd"),
    ("user@example.org", "@ppl3"),
    ("mailer", "unknown"),
    ("m", "Ok"),
    ("m", "p/=+&"),
]


@pytest.mark.parametrize(("username", "password"), LOGIN_CASES)
@pytest.mark.parametrize("before", ["", "x", "xy", "xyz"])
def test_secrets_are_removed_in_every_form(username: str, password: str, before: str) -> None:
    """As it is, in a URL, and in whatever base64 makes of it, with or without padding."""
    secrets = Secrets(username, password)
    plain = f"\0{username}\0{password}"
    texts = [
        password,
        f"{before}{password}{before}",
        quote(password, safe=""),
        *(base64.b64encode(one.encode()).decode() for one in (plain, f"{username}{plain}", password)),
        base64.b64encode(f"{username}:{password}".encode()).decode().rstrip("="),
    ]
    if len(password) > 8:  # of a shorter one, what lies in the middle of something longer is too short to be found
        texts.append(base64.b64encode(f"{before}{password}{before}".encode()).decode())
    for text in texts:
        left = secrets.removed_from(f"5.5.2 what is {text} to be?".encode())
        assert text.encode() not in left
        assert password.encode() not in left.replace(LOGIN_PART.encode(), b"")
        assert LOGIN_PART.encode() in left


def test_secrets_without_a_login() -> None:
    assert Secrets().removed_from(b"anything") == b"anything"
    assert Secrets("mailer", None).removed_from(b"mailer") == b"mailer"


@pytest.mark.parametrize("said", [b"queued as <login>", b"<login> Message accepted for delivery", b"id=<login>x"])
def test_reply_queue_id_is_no_part_of_the_login(said: bytes) -> None:
    assert reply(Stage.DOT, 250, said).queue_id in {None, "x"}


@pytest.mark.parametrize("stage", list(Stage))
def test_reply_of_a_yes_keeps_the_queue_id_only(stage: Stage) -> None:
    found = reply(stage, 250, b"2.0.0 Ok: what you like, queued as 4fXyZ01abc")
    assert found.text == ""
    assert found.queue_id == ("4fXyZ01abc" if stage is Stage.DOT else None)
    assert reply(stage, 550, b"no").text == "no"
