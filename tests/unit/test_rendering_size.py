"""Emails about many tokens, or with hostile names: what is shown first, and how large they get."""

import re
from dataclasses import replace

import pytest
from support.rendering import ADA, DAY, HOUR, MANAGE, Page, render, token, words

from token_pipelines.mail.rendering import LISTED_AT_MOST, Content


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
