"""Every template we ship, rendered whole."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from support.rendering import ADA, DAY, HOUR, MANAGE, RENEW, SCRIPT, TEMPLATES, Page, render, token, words

from token_pipelines.mail.rendering import LISTED_AT_MOST
from token_pipelines.mail.wrapping import TEXT_WIDTH
from token_pipelines.model import Recipient


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
        "    Last used:  never, as far as we know\n"
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


@pytest.mark.parametrize(
    ("left", "remains"),
    [
        (DAY, "bleibt noch 1 Tag"),
        (HOUR, "bleibt noch 1 Stunde"),
        (DAY + HOUR, "bleiben noch 1 Tag und 1 Stunde"),
        (3 * DAY, "bleiben noch 3 Tage"),
    ],
)
def test_render_german_singular(left: timedelta, remains: str) -> None:
    """The verb agrees with the remaining time, in the subject and in both parts of either notice."""
    ada = replace(ADA, locale="de")
    expiring = render([token(left), token(left + DAY)], ada)
    expired = render([token(-DAY), token(left), token(left + DAY)], ada)
    assert expiring.subject.endswith(f"für das erste {remains}")
    for text in (expiring.text, expired.text):
        assert f"für das erste {remains}." in " ".join(text.split())
    for html in (expiring.html, expired.html):
        assert f"für das erste {remains}." in " ".join(words(html).split())


def test_render_several_tokens_says_when_each_is_refused() -> None:
    """Not from the first expiry on: each token is refused from its own expiry on."""
    tokens = [token(DAY), token(3 * DAY)]
    english, german = render(tokens), render(tokens, replace(ADA, locale="de"))
    for text in (english.text, words(english.html)):
        assert "the first in 1 day. Each is refused as soon as it expires:" in " ".join(text.split())
    for text in (german.text, words(german.html)):
        assert "noch 1 Tag. Jedes wird abgelehnt, sobald es abläuft:" in " ".join(text.split())


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


def test_render_styles_are_on_the_elements() -> None:
    """Where a mail program drops the head, colours and distances remain."""
    html = render([token(DAY)]).html
    for name in re.findall(r'class="([a-z]+)"', html):
        assert re.search(rf'class="{name}"[^>]* style="', html), name
    head = html[: html.index("</head>")]
    assert head.count("@media") == 2
    assert re.search(r"[^;{}]+:[^;{}]+(?<!!important);", head.partition("@media")[2]) is None


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


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ([DAY], "From then on it is refused, which breaks the CI jobs and scripts that use it."),
        ([DAY, 2 * DAY], "refused as soon as it expires, which breaks the CI jobs and scripts that use it."),
        ([-HOUR], "is now refused. That breaks the CI jobs and scripts that still use it."),
        ([-HOUR, -DAY], "are now refused. That breaks the CI jobs and scripts that still use them."),
    ],
)
def test_render_without_email_breaks_speaks_of_jobs_and_scripts(left: list[timedelta], said: str) -> None:
    content = render([token(one, token_id=str(number)) for number, one in enumerate(left)], breaks=None)
    assert said in " ".join(content.text.split())
    assert said in " ".join(Page(content.html).words.split())


def test_render_what_breaks_is_the_operators_word() -> None:
    content = render([token(-HOUR)], breaks="deploying <b>")
    assert "Deploying <b> with it fails, and so do" in " ".join(content.text.split())
    assert "Deploying <b> with it fails, and so do" in " ".join(Page(content.html).words.split())
