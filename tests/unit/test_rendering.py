"""Every template we ship, rendered whole."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from token_pipelines.config import Email, Links
from token_pipelines.errors import ConfigError, TemplateError
from token_pipelines.mail.rendering import LISTED_AT_MOST, Content, Renderer
from token_pipelines.mail.wrapping import TEXT_WIDTH
from token_pipelines.model import Recipient, TokenFacts

TEMPLATES = Path(__file__).parents[2] / "templates"
NOW = datetime(2026, 11, 23, 14, 6, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
ADA = Recipient(recipient_id="u 1/2", name="Ada Lovelace", address="ada@example.org")
RENEW = "https://example.org/settings/tokens/new?from={token_id}&for={recipient_id}"
MANAGE = "https://example.org/settings/tokens"
SCRIPT = "<script>alert(1)</script>"


def email(service: str = "Example Registry", renew: str | None = RENEW, unsubscribe: str | None = None) -> Email:
    links = Links(renew=renew, manage=MANAGE, unsubscribe=unsubscribe)
    return Email.model_validate(
        {"from": "Example Registry <noreply@example.org>", "service": service, "links": links}, by_name=True
    )


def token(left: timedelta, name: str | None = "ci-deploy", token_id: str = "tok_1", **facts: object) -> TokenFacts:  # noqa: S107 -- an id
    ordinary = {
        "scopes": ("publish-new", "publish-update"),
        "created_at": NOW - 90 * DAY,
        "last_used_at": NOW - 2 * DAY,
    }
    return TokenFacts(token_id=token_id, name=name, expires_at=NOW + left, **{**ordinary, **facts})  # type: ignore[arg-type]


def render(tokens: Sequence[TokenFacts], recipient: Recipient = ADA, **changes: object) -> Content:
    return shipped(**changes).render(recipient, tokens, now=NOW)


@cache
def shipped(**changes: object) -> Renderer:
    """Load what we ship, once for each set of values: it takes a tenth of a second."""
    return Renderer(TEMPLATES, email(**changes))  # type: ignore[arg-type]


class Page(HTMLParser):
    """What a browser would make of it: the elements, the links and the words."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.words = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.words += data


def words(html: str) -> str:
    return " ".join(Page(html).words.split())


@pytest.mark.parametrize(
    ("left", "subject"),
    [
        ((7 * DAY - HOUR,), "Your Example Registry API token expires in 6 days"),
        ((30 * 60 * timedelta(seconds=1),), "Your Example Registry API token expires in less than an hour"),
        (
            (9 * DAY, DAY - HOUR, 3 * DAY),
            "3 of your Example Registry API tokens expire soon; the first in 23 hours",
        ),
        ((-2 * HOUR,), "Your Example Registry API token has expired"),
        ((timedelta(),), "Your Example Registry API token has expired"),
        ((-2 * HOUR, -DAY), "2 of your Example Registry API tokens have expired"),
        (
            (-2 * HOUR, DAY),
            "1 of your Example Registry API tokens has expired; 1 more expires in 1 day",
        ),
        (
            (-2 * HOUR, -DAY, 5 * HOUR, DAY),
            "2 of your Example Registry API tokens have expired; 2 more expire soon, the first in 5 hours",
        ),
    ],
)
def test_render_subject(left: tuple[timedelta, ...], subject: str) -> None:
    """How many and how soon, and no token's name."""
    assert render([token(each) for each in left]).subject == subject


def test_render_living_token_whole_text() -> None:
    """The text part, to the letter."""
    content = render([token(7 * DAY - HOUR)], unsubscribe="https://example.org/u/{recipient_id}")
    assert content.text == (
        "Hello Ada Lovelace,\n"
        "\n"
        "One of your API tokens at Example Registry expires in 6 days and 23\n"
        "hours. From then on it is refused: publishing with it fails, and so do\n"
        "the CI jobs and scripts that use it.\n"
        "\n"
        "  ci-deploy\n"
        "    Expires:    Monday, 30 November 2026 at 13:06 UTC\n"
        "                (in 6 days and 23 hours)\n"
        "    Scopes:     publish-new, publish-update\n"
        "    Created:    25 August 2026\n"
        "    Last used:  21 November 2026\n"
        "    Renew it:   https://example.org/settings/tokens/new?from=tok_1&for=u%201%2F2\n"
        "\n"
        'Still in use? Follow "Renew it" to create a replacement, and put it\n'
        "wherever the old token is used before the time is up.\n"
        "\n"
        "No longer needed? Then there is nothing to do.\n"
        "\n"
        "See and manage all of your tokens:\n"
        "https://example.org/settings/tokens\n"
        "\n"
        "------------------------------------------------------------------------\n"
        "You receive this because you own API tokens at Example Registry that\n"
        "expire.\n"
        "\n"
        "To stop these reminders:\n"
        "https://example.org/u/u%201%2F2\n"
    )


def test_render_mixed_digest_whole_text() -> None:
    """Expired ones first, under their own heading; most urgent first in each."""
    content = render(
        [
            token(5 * DAY, "later", scopes=(), last_used_at=None),
            token(-HOUR, "just now"),
            token(DAY, "tomorrow"),
            token(-3 * DAY, "long ago"),
        ],
        renew=None,
    )
    assert content.text == (
        "Hello Ada Lovelace,\n"
        "\n"
        "2 of your API tokens at Example Registry have expired and are now\n"
        "refused. Publishing with them fails, and so do the CI jobs and scripts\n"
        "that still use them. 2 more expire soon, the first in 1 day.\n"
        "\n"
        "EXPIRED\n"
        "\n"
        "  long ago\n"
        "    Expired:    Friday, 20 November 2026 at 14:06 UTC\n"
        "                (3 days ago)\n"
        "    Scopes:     publish-new, publish-update\n"
        "    Created:    25 August 2026\n"
        "    Last used:  21 November 2026\n"
        "\n"
        "  just now\n"
        "    Expired:    Monday, 23 November 2026 at 13:06 UTC\n"
        "                (1 hour ago)\n"
        "    Scopes:     publish-new, publish-update\n"
        "    Created:    25 August 2026\n"
        "    Last used:  21 November 2026\n"
        "\n"
        "EXPIRING SOON\n"
        "\n"
        "  tomorrow\n"
        "    Expires:    Tuesday, 24 November 2026 at 14:06 UTC\n"
        "                (in 1 day)\n"
        "    Scopes:     publish-new, publish-update\n"
        "    Created:    25 August 2026\n"
        "    Last used:  21 November 2026\n"
        "\n"
        "  later\n"
        "    Expires:    Saturday, 28 November 2026 at 14:06 UTC\n"
        "                (in 5 days)\n"
        "    Scopes:     none given\n"
        "    Created:    25 August 2026\n"
        "    Last used:  never used, as far as we know\n"
        "\n"
        "Still in use? Create a replacement on the page below, and put it\n"
        "wherever the old token is used.\n"
        "\n"
        "No longer needed? Then there is nothing to do.\n"
        "\n"
        "See and manage all of your tokens:\n"
        "https://example.org/settings/tokens\n"
        "\n"
        "------------------------------------------------------------------------\n"
        "You receive this because you own API tokens at Example Registry that\n"
        "expire.\n"
    )
    said = words(content.html)
    order = ["long ago", "just now", "Expiring soon", "tomorrow", "later"]
    assert sorted(order, key=said.index) == order


@pytest.mark.parametrize("left", [[DAY], [DAY, 2 * DAY]])
def test_render_living_tokens_never_says_expired(left: list[timedelta]) -> None:
    """Nor does anything in the markup say it, which a mail program could show."""
    content = render([token(each) for each in left])
    for part in (content.subject, content.text, content.html):
        assert "expired" not in part.lower()


@pytest.mark.parametrize("left", [[-DAY], [-DAY, timedelta()]])
def test_render_dead_tokens_never_says_expires(left: list[timedelta]) -> None:
    """What is over is not announced."""
    content = render([token(each) for each in left])
    for part in (content.subject, content.text, content.html):
        assert re.search(r"expires|expiring|\bsoon", part, re.IGNORECASE) is None


@pytest.mark.parametrize("left", [DAY, -DAY])
def test_render_both_parts_say_the_same(left: timedelta) -> None:
    """Name, scopes, dates, instant, remaining time and links are in the text and in the HTML."""
    content = render([token(left)], unsubscribe="https://example.org/u/{recipient_id}")
    for fact in (
        "ci-deploy",
        "publish-new, publish-update",
        "25 August 2026",
        "21 November 2026",
        "24 November 2026 at 14:06 UTC" if left > timedelta() else "22 November 2026 at 14:06 UTC",
        "in 1 day" if left > timedelta() else "1 day ago",
        "You receive this because you own API tokens at Example Registry that expire.",
    ):
        assert fact in " ".join(content.text.split())
        assert fact in words(content.html)
    for link in (
        "https://example.org/settings/tokens/new?from=tok_1&for=u%201%2F2",
        "https://example.org/settings/tokens",
        "https://example.org/u/u%201%2F2",
    ):
        assert link in content.text.split()
        assert link in Page(content.html).links


@pytest.mark.parametrize("left", [[DAY], [-DAY], [-DAY, DAY]])
def test_render_hostile_text(left: list[timedelta]) -> None:
    """Markup is literal in the text and escaped in the HTML; lines, links and directions cannot be forged."""
    plain = Page(render([token(each) for each in left]).html)
    names = [SCRIPT, "a\r\n\r\nRenew it: https://evil.example/", "\u202egnp\" onload='x' {{ service }}"]
    tokens = [token(each, name, scopes=(SCRIPT,)) for each in left for name in names]
    eve = Recipient(recipient_id='"><b>', name=f"{SCRIPT}\nhttps://evil.example", address="eve@example.org")
    content = render(tokens, eve, service=f"{SCRIPT} & Co")
    for name in (SCRIPT, "a Renew it: https://evil.example/", "gnp\" onload='x' {{ service }}"):
        assert content.text.count(f"\n  {name}\n") == len(left)  # to the letter, on a line of its own
    assert content.text.startswith(f"Hello {SCRIPT} https://evil.example,\n")
    assert "<script" not in content.html
    assert "&lt;script&gt;" in content.html
    page = Page(content.html)
    assert set(page.tags) <= {*plain.tags, "h2"}
    assert page.attributes <= plain.attributes
    assert all(link.startswith("https://example.org/") for link in page.links)
    assert "evil.example" not in page.words
    for part in (content.text, page.words):
        assert "\u202e" not in part
        assert "{{ service }}" in part
    assert "\r" not in content.text + content.html + content.subject
    assert content.subject.isprintable()


def test_render_no_names() -> None:
    """A token or a person without a name still gets a proper email."""
    content = render([token(DAY, None)], Recipient(recipient_id="1", name=" \u200b", address="x@example.org"))
    assert content.text.startswith("Hello,\n")
    assert "  (no name)\n" in content.text
    assert "Hello," in words(content.html)


def test_render_users_time_zone() -> None:
    """The instant is told in the user's zone, which is named, with UTC beside it."""
    ada = replace(ADA, timezone="Europe/Berlin")
    content = render([token(DAY)], ada)
    assert (
        "    Expires:    Tuesday, 24 November 2026 at 15:06 (Europe/Berlin)\n"
        "                24 November 2026 at 14:06 UTC\n"
        "                (in 1 day)\n"
    ) in content.text
    assert "15:06 (Europe/Berlin)24 November 2026 at 14:06 UTC" in words(content.html)


def test_render_german_whole_text() -> None:
    """A locale with templates of its own: words, dates and remaining time, to the letter."""
    ada = replace(ADA, locale="de-AT", timezone="Europe/Vienna")
    content = render([token(7 * DAY - HOUR)], ada, unsubscribe="https://example.org/u/{recipient_id}")
    assert content.subject == "Ihr API-Token bei Example Registry läuft ab: noch 6 Tage"
    assert content.text == (
        "Guten Tag Ada Lovelace,\n"
        "\n"
        "Eines Ihrer API-Tokens bei Example Registry läuft bald ab (noch 6 Tage\n"
        "und 23 Stunden). Danach wird es abgelehnt: Veröffentlichen schlägt damit\n"
        "fehl, ebenso die CI-Jobs und Skripte, die es verwenden.\n"
        "\n"
        "  ci-deploy\n"
        "    Läuft ab:   Montag, 30. November 2026, 14:06 (Europe/Vienna)\n"
        "                30. November 2026, 13:06 UTC\n"
        "                (noch 6 Tage und 23 Stunden)\n"
        "    Rechte:     publish-new, publish-update\n"
        "    Erstellt:   25. August 2026\n"
        "    Benutzt:    21. November 2026\n"
        "    Erneuern:   https://example.org/settings/tokens/new?from=tok_1&for=u%201%2F2\n"
        "\n"
        "Noch in Gebrauch? Legen Sie über „Erneuern“ einen Ersatz an und tragen\n"
        "Sie ihn überall dort ein, wo das alte Token verwendet wird, bevor die\n"
        "Zeit um ist.\n"
        "\n"
        "Nicht mehr nötig? Dann ist nichts zu tun.\n"
        "\n"
        "Alle Ihre Tokens ansehen und verwalten:\n"
        "https://example.org/settings/tokens\n"
        "\n"
        "------------------------------------------------------------------------\n"
        "Sie erhalten diese E-Mail, weil Ihnen bei Example Registry API-Tokens\n"
        "gehören, die ablaufen.\n"
        "\n"
        "Um diese Erinnerungen abzubestellen:\n"
        "https://example.org/u/u%201%2F2\n"
    )
    assert '<html lang="de"' in content.html
    said = words(content.html)
    for fact in ("Noch 6 Tage und 23 Stunden", "Montag, 30. November 2026, 14:06", "Rechte: publish-new"):
        assert fact in said


@pytest.mark.parametrize("left", [[DAY], [DAY, 2 * DAY], [-DAY], [-DAY, -2 * DAY], [-DAY, DAY], [-DAY, DAY, 2 * DAY]])
@pytest.mark.parametrize("renew", [RENEW, None])
@pytest.mark.parametrize("times", [1, 60])
def test_render_german_leaves_nothing_in_english(left: list[timedelta], renew: str | None, times: int) -> None:
    """Every branch of the translation, and of what it shares with the original."""
    tokens = [token(each, None, scopes=("a",) * 20, last_used_at=None) for each in left] * times
    german = replace(ADA, locale="de")
    content = render(tokens, german, renew=renew, unsubscribe="https://example.org/u")
    for part in (content.subject, content.text, words(content.html)):
        assert not re.search(r"\b(the|your|and|more|used|no|of|expire[sd]?|ago|days?)\b", part.replace(MANAGE, ""))
    hidden = len(tokens) - LISTED_AT_MOST
    assert (f"... und {hidden} weitere" in content.text) == (hidden > 0)


@pytest.mark.parametrize("locale", [None, "", "C", "xx_YY", "../de", "de/../..", "no such thing", "en", "\x00"])
def test_render_unknown_locale(locale: str | None) -> None:
    """Silently the default: a profile's mistake must not cost anybody the notice."""
    assert render([token(DAY)], replace(ADA, locale=locale)).subject == render([token(DAY)]).subject


def test_render_locale_without_templates() -> None:
    """Its dates at least are the reader's own; the words stay those of the default."""
    content = render([token(DAY)], replace(ADA, locale="fr_CA"))
    assert "Hello Ada" in content.text
    assert "mardi 24 novembre 2026" in content.text
    assert "(in 1 day)" in content.text


def test_render_link_like_words_are_defused_in_the_html_only() -> None:
    """A name copied from the text finds its token; one in the HTML reads the same, and is no link."""
    ada = replace(ADA, name="ada@evil.example")
    content = render([token(DAY, "https://evil.example/ci", scopes=("crate:evil.example", "publish-new"))], ada)
    assert "\u2060" not in content.text
    for line in ("Hello ada@evil.example,\n", "\n  https://evil.example/ci\n", ": crate:evil.example, publish-new\n"):
        assert line in re.sub(r"(Scopes:) +", r"\1 ", content.text)
    page = Page(content.html)
    assert "evil.example" not in page.words
    for name in ("ada@evil.example", "https://evil.example/ci", "crate:evil.example, publish-new"):
        assert name in page.words.replace("\u2060", "")
    assert "\u2060" not in content.subject


def test_render_no_phone_numbers_or_dates_become_links() -> None:
    """A phone makes links of more than our word joiners reach, save where the head forbids it."""
    tag = '<meta name="format-detection" content="telephone=no,date=no,address=no,email=no,url=no">'
    for locale in (None, "de"):
        assert tag in render([token(DAY)], replace(ADA, locale=locale)).html.partition("</head>")[0]


def test_render_scopes_that_show_as_nothing() -> None:
    """They are left out, and not counted."""
    content = render([token(DAY, scopes=("", "publish", " ", "\ufe0f", "\u200b", *(f"s{i}" for i in range(12)), ""))])
    said = " ".join(content.text.split())
    assert "Scopes: publish, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10 and 1 more Created:" in said
    assert "no name" not in said
    assert "Scopes: none given" in words(render([token(DAY, scopes=("", " "))]).html)


def listed(content: Content) -> list[str]:
    """The tokens' names, in the order of the text."""
    return re.findall(r"^  (\S.*)$", content.text, re.MULTILINE)


@pytest.mark.parametrize(
    ("dead", "living", "shown_dead", "shown_living"),
    [
        (0, 1, 0, 1),
        (1, 0, 1, 0),
        (1, 4, 1, 4),
        (0, 50, 0, 50),
        (25, 25, 25, 25),
        (0, 51, 0, 50),
        (51, 0, 50, 0),
        (48, 3, 47, 3),
        (60, 3, 47, 3),
        (0, 500, 0, 50),
        (500, 0, 50, 0),
        (490, 10, 40, 10),
        (450, 50, 1, 49),  # the templates speak of the one that has just expired
        (1, 60, 1, 49),
        (250, 250, 1, 49),
    ],
)
@pytest.mark.parametrize("locale", [None, "de"])
def test_render_living_tokens_get_their_places_first(
    dead: int, living: int, shown_dead: int, shown_living: int, locale: str | None
) -> None:
    """Soonest first, for something can be done about them; then those that expired last. In order of expiry in each."""
    tokens = [token(i * HOUR, f"live {i}") for i in range(1, living + 1)]
    tokens += [token(-i * HOUR, f"dead {i}") for i in range(1, dead + 1)]
    content = render(tokens[::-1], replace(ADA, locale=locale))
    assert listed(content) == [
        *(f"dead {i}" for i in range(shown_dead, 0, -1)),
        *(f"live {i}" for i in range(1, shown_living + 1)),
    ]
    hidden = dead + living - LISTED_AT_MOST
    assert (re.findall(r"^\.\.\. \w+ (\d+) ", content.text, re.MULTILINE)) == ([str(hidden)] if hidden > 0 else [])


HOSTILE_NAMES = {
    "marks": "x\u0316\u0317\u0318\u0319\u0903\u0903\u0903\u0903" * 500,
    "wide marks": "\U00011013\U00011038\U00011039\U0001103a" * 900,
    "emoji": "\U0001f44d\U0001f3ff" * 900,
    "flags": "\U0001f1e9\U0001f1ea" * 900,
    "keycaps": "1\ufe0f\u20e3" * 900,
    "at signs": "@" * 900,
    "at signs with marks": "@\U00011038\U00011039\U0001103a" * 900,
    "domains": "a.bc" * 900,
    "quotes": "\"'" * 900,
    "markup": "<&>" * 900,
}


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
@pytest.mark.parametrize("count", [10, LISTED_AT_MOST, 500])
def test_render_largest_hostile_email(name: str, count: int) -> None:
    """Gmail shows 102 KB of an email, whatever is in it: the most tokens shown in full, and the most of all."""
    eve = replace(ADA, name=name, locale="de", timezone="America/Argentina/ComodRivadavia")
    scopes = tuple(f"{i}{name}" for i in range(100))
    tokens = [token(i * HOUR, name, scopes=scopes) for i in range(-count // 2, count // 2)]
    content = render(tokens, eve, unsubscribe="https://example.org/u")
    assert len(content.html.encode()) < 102_000
    if count >= LISTED_AT_MOST:
        assert content.text.count("Erneuern:   https") == LISTED_AT_MOST


@pytest.mark.parametrize(("dead", "living"), [(0, 50), (50, 0), (25, 25), (1, 1)])
def test_render_too_large_for_gmail(dead: int, living: int) -> None:
    """Whatever makes it so large, here the links: fewer are listed, the others are counted, and the end is shown."""
    tokens = [token(i * HOUR, f"live {i}", "x" * 4000) for i in range(1, living + 1)]
    tokens += [token(-i * HOUR, f"dead {i}", "x" * 4000) for i in range(1, dead + 1)]
    content = render(tokens)
    assert len(content.html.encode()) < 102_000
    names = listed(content)
    assert 15 < len(names) < 25 or names == ["dead 1", "live 1"]
    assert (f"... and {len(tokens) - len(names)} more" in content.text) == (len(tokens) > len(names))
    assert all(f"<bdi>{name}</bdi>" in content.html for name in names)


@pytest.mark.parametrize("sign", [1, -1])
def test_render_long_digest(sign: int) -> None:
    """The subject counts them all, the list is capped and says so, and Gmail shows it whole."""
    count = 500
    tokens = [token(sign * i * HOUR, f"token number {i}" * 4, f"tok_{i}") for i in range(1, count + 1)]
    content = render(tokens, replace(ADA, timezone="America/Argentina/Buenos_Aires"))
    assert content.subject.startswith(f"{count} of your Example Registry API tokens")
    assert content.text.count("Renew it:   https") == LISTED_AT_MOST
    assert f"... and {count - LISTED_AT_MOST} more, see {MANAGE}\n" in content.text
    assert f"and {count - LISTED_AT_MOST} more, see all of your tokens" in words(content.html)
    assert len(content.html.encode()) < 102_000


@pytest.mark.parametrize(("count", "full"), [(1, True), (10, True), (11, False)])
def test_render_many_tokens_briefly(count: int, full: bool) -> None:  # noqa: FBT001 -- a test's parameter
    """A long list says of each token when it ends and how to renew it, and no more."""
    content = render([token(DAY)] * count)
    assert content.text.count("Scopes:") == count * full
    assert words(content.html).count("Scopes:") == count * full
    assert Page(content.html).links.count("https://example.org/settings/tokens/new?from=tok_1&for=u%201%2F2") == count


def test_render_html_stands_alone() -> None:
    """No image, no script, nothing fetched; and one style block."""
    html = render([token(DAY), token(-DAY)]).html
    page = Page(html)
    assert page.tags.count("style") == 1
    assert not {"img", "script", "link", "iframe"} & set(page.tags)
    assert "url(" not in html
    assert "@import" not in html


@pytest.mark.parametrize("left", [[DAY], [-DAY], [-DAY, DAY], [DAY] * 3])
def test_render_text_is_wrapped(left: list[timedelta]) -> None:
    """Prose fits the width; only names and links may be longer, as they must stay whole."""
    tokens = [token(each, scopes=tuple(f"scope-{i}" for i in range(20))) for each in left]
    content = render(tokens, service="The Rather Long Named Example Package Registry")
    long = [line for line in content.text.splitlines() if len(line) > TEXT_WIDTH and "https://" not in line]
    assert long == []
    assert "\n\n\n" not in content.text
    assert not re.search(r"[ \t]$", content.text, re.MULTILINE)
    assert "scope-11 and 8 more" in " ".join(content.text.split())


def test_render_without_tokens() -> None:
    """A notice about nothing is the caller's mistake."""
    with pytest.raises(ValueError, match="at least one token"):
        render([])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(TEMPLATES, tmp_path / "templates")
    return tmp_path / "templates"


@pytest.mark.parametrize(
    ("name", "line", "fault"),
    [
        (
            "token-expiring/body.txt",
            "{{ servise }}",
            r"body\.txt line 1 uses servise, which is not a variable of emails; use one of",
        ),
        ("token-expired/body.html", "{% if false %}{{ oops }}{% endif %}", r"line 1 uses oops"),
        ("token-expiring/subject.txt", "{{ expiring[0].nmae }}", r"subject\.txt line 1 fails: .*'nmae'"),
        ("token-expiring/subject.txt", "\n\n{{ 1 / 0 }}", r"subject\.txt line 3 fails: division by zero; fix it"),
        ("token-expiring/subject.txt", "a\n{% if %}", r"subject\.txt line 2 fails: .*; fix it"),
        ("token-expired/body.html", "{% extends 'gone.html' %}", r"line 1 needs gone\.html, which is missing"),
        (
            "_base/tokens.txt",
            "{% macro blocks(tokens, brief) %}\n{{ tokens[0].colour }}\n{% endmacro %}",
            r"line \d+ fails",
        ),
        ("token-expiring/de/body.txt", "{{ dienst }}", r"de/body\.txt line 1 uses dienst, which is not"),
        ("token-expiring/de/subject.txt", "{{ 1 / 0 }}", r"de/subject\.txt line 1 fails: division by zero"),
        (
            "_base/tokens.html",
            "<b>\n</b><td class='{{ x }}'>",
            r"_base/tokens\.html fails: line 2 gives <td> a class that depends on a tag; .*; fix it",
        ),
        ("extra.txt", "{{ x | nofilter }}", r"extra\.txt line 1 fails: No filter named 'nofilter'"),
    ],
)
def test_renderer_faulty_template(folder: Path, name: str, line: str, fault: str) -> None:
    """Found at load, with file, line and cure, in one sentence."""
    (folder / name).write_text(line)
    with pytest.raises(TemplateError, match=fault) as caught:
        Renderer(folder, email())
    assert str(caught.value).count("\n") == 0
    assert str(folder) in str(caught.value)


def test_renderer_missing_template(folder: Path) -> None:
    """Named, with the cure."""
    (folder / "token-expired/body.html").unlink()
    with pytest.raises(TemplateError, match=r"token-expired/body\.html is missing; copy it from the templates we ship"):
        Renderer(folder, email())


def test_renderer_half_a_translation(folder: Path) -> None:
    """The English subject of a German text would be found by its readers only."""
    (folder / "token-expired/de/subject.txt").unlink()
    with pytest.raises(TemplateError, match=r"de/subject\.txt is missing; a translation needs the subject, the text"):
        Renderer(folder, email())


def test_renderer_translation_for_no_locale(folder: Path) -> None:
    """A folder that no profile will ever ask for is a typing mistake."""
    (folder / "token-expired/de").rename(folder / "token-expired/gr")
    with pytest.raises(TemplateError, match=r"token-expired/gr is not named after a locale; name it like de or pt_BR"):
        Renderer(folder, email())


def test_renderer_one_translation_of_two(folder: Path) -> None:
    """What has no translation is said in the default language; other folders are the operator's own business."""
    shutil.rmtree(folder / "token-expired/de")
    (folder / "token-expired/partials").mkdir()
    (folder / "token-expired/partials/extra.txt").write_text("{{ service }}")
    renderer = Renderer(folder, email())
    german = replace(ADA, locale="de")
    assert renderer.render(german, [token(-DAY)], now=NOW).subject == "Your Example Registry API token has expired"
    assert renderer.render(german, [token(DAY)], now=NOW).subject.startswith("Ihr API-Token")


def test_renderer_nearest_translation(folder: Path) -> None:
    """de_AT has its own, de_CH gets de; however the folder is spelt."""
    shutil.copytree(folder / "token-expiring/de", folder / "token-expiring/de-AT")
    (folder / "token-expiring/de-AT/subject.txt").write_text("Servus")
    renderer = Renderer(folder, email())
    subjects = [
        renderer.render(replace(ADA, locale=locale), [token(DAY)], now=NOW).subject.split()[0]
        for locale in ("de_AT", "DE-at", "de_CH", "de", "en")
    ]
    assert subjects == ["Servus", "Servus", "Ihr", "Ihr", "Your"]
    assert renderer.translations == ("de", "de_at")


def test_renderer_without_a_stylesheet(folder: Path) -> None:
    """An operator's plain templates need none."""
    (folder / "_base/style.css").unlink()
    html = Renderer(folder, email()).render(ADA, [token(DAY)], now=NOW).html
    assert "style=" not in html
    assert "@media" not in html


def test_renderer_own_style(folder: Path) -> None:
    """A designer edits a class, and every email has it."""
    sheet = folder / "_base/style.css"
    sheet.write_text(sheet.read_text() + "\n.button { background-color: #123456; }\n")
    html = Renderer(folder, email()).render(ADA, [token(DAY)], now=NOW).html
    assert re.search(r'class="button"[^>]*background-color:#123456', html)


def test_render_styles_are_on_the_elements() -> None:
    """Where a mail program drops the head, colours and distances remain."""
    html = render([token(DAY)]).html
    for name in re.findall(r'class="([a-z]+)"', html):
        assert re.search(rf'class="{name}"[^>]* style="', html), name
    head = html[: html.index("</head>")]
    assert head.count("@media") == 2
    assert re.search(r"[^;{}]+:[^;{}]+(?<!!important);", head.partition("@media")[2]) is None


def test_renderer_template_not_text(folder: Path) -> None:
    """A file in another encoding is named."""
    (folder / "token-expired/body.html").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TemplateError, match=r"body\.html fails: .*utf-8.*; fix it"):
        Renderer(folder, email())


def test_renderer_own_template(folder: Path) -> None:
    """An operator's words are used, and a subject of two lines becomes one."""
    (folder / "token-expiring/subject.txt").write_text("Achtung,\n{{ count }} bei {{ service }}\n")
    content = Renderer(folder, email()).render(ADA, [token(DAY)], now=NOW)
    assert content.subject == "Achtung, 1 bei Example Registry"


@pytest.mark.parametrize("key", ["manage", "unsubscribe"])
def test_renderer_token_id_in_a_link_for_all(key: str) -> None:
    """One email speaks of several tokens: such a link cannot be filled in."""
    links = Links(**{"manage": MANAGE, key: "https://example.org/{token_id}"})
    with pytest.raises(ConfigError, match=rf"email\.links\.{key} cannot hold {{token_id}}"):
        Renderer(TEMPLATES, email().model_copy(update={"links": links}))


def contrast(one: str, other: str) -> float:
    """WCAG 2: the contrast of two colours like ``#57606a``."""

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright, dark = sorted((light(one), light(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        ("#1f2328", "#ffffff"),
        ("#57606a", "#ffffff"),
        ("#0b57d0", "#ffffff"),
        ("#e6edf3", "#161b22"),
        ("#a3adb8", "#161b22"),
        ("#79b8ff", "#161b22"),
        ("#ffffff", "#1a63d8"),
    ],
)
def test_template_colours_contrast(ink: str, paper: str) -> None:
    """Every pair of colours that carries words is in the stylesheet, and reaches AA; axe-core checks what is shown."""
    sheet = (TEMPLATES / "_base/style.css").read_text()
    assert ink in sheet
    assert paper in sheet
    assert contrast(ink, paper) >= 4.5
