"""The shipped templates, with tokens to render them for."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

from token_pipelines.config import Email, Links
from token_pipelines.mail.rendering import Content, Renderer
from token_pipelines.model import Recipient, TokenFacts

TEMPLATES = Path(__file__).parents[2] / "templates"
NOW = datetime(2026, 11, 23, 14, 6, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
ADA = Recipient(recipient_id="u 1/2", name="Ada Lovelace", address="ada@example.org")
RENEW = "https://example.org/settings/tokens/new?from={token_id}&for={recipient_id}"
MANAGE = "https://example.org/settings/tokens"
SCRIPT = "<script>alert(1)</script>"


def email(
    service: str = "Example Registry",
    renew: str | None = RENEW,
    unsubscribe: str | None = None,
    breaks: str | None = "publishing",
) -> Email:
    links = Links(renew=renew, manage=MANAGE, unsubscribe=unsubscribe)
    return Email.model_validate(
        {"from": "Example Registry <noreply@example.org>", "service": service, "breaks": breaks, "links": links},
        by_name=True,
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
