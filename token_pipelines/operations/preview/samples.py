"""Renders the operator's templates with made-up recipients and tokens: one, many, hostile names, right-to-left names.

Uses no database, and sends nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from token_pipelines.config import Config
from token_pipelines.mail.rendering import LISTED_AT_MOST, Content, Renderer
from token_pipelines.model import Recipient, TokenFacts
from token_pipelines.tiers import Tier

SENT_OFF_BY: Final = timedelta(hours=5)
"""How long before its threshold a sample is sent, since runs look ahead; after it, for tiers after the expiry."""
AGE: Final = timedelta(days=90)
MANY: Final = 500
MORE_THAN_LISTED: Final = LISTED_AT_MOST + 10
_STEP: Final = timedelta(minutes=7)
_ZONE_OF_TRANSLATIONS: Final = (
    "Europe/Berlin"  # shows times in this zone and in UTC; the default language shows UTC only
)

_HOSTILE: Final = (
    "<script>alert('expired')</script>",
    '"><img src=x onerror=alert(1)> {{ service }} {% raw %}',
    "Your account is locked: https://evil.example/login or www.evil.example, help@evil.example",
    "ci\r\nBcc: everybody@example.org\r\n\r\nRenew it: https://evil.example",
    "\u202egnp.tpircs\u202c \u2066left\u2069 \u200b\u00ad",
    "Z\u0351\u0352\u0353\u0354\u0355\u0356\u0357\u0358\u0359a\u0351\u0352\u0353\u0354\u0355\u0356lgo",
    "=?utf-8?q?=41?= -- \u2028 $(reboot) `id` %s %(name)s",
)
_LONG: Final = (
    "a-name-without-any-blank-in-it-" * 8,
    "A token whose owner wanted to be quite sure that its purpose would still be understood in five years",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "日本語の名前" * 20,
)
_RIGHT_TO_LEFT: Final = (
    "مفتاح النشر",
    "מפתח פריסה 2026 (CI)",
    "deploy-מפתח-v2",
    "انتشار خودکار",
)
_SCOPES: Final = ("publish-new", "publish-update")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One rendered sample. ``locale`` is ``""`` for the default templates."""

    tier: str
    kind: str
    locale: str
    recipient: Recipient
    tokens: tuple[TokenFacts, ...]
    content: Content

    @property
    def key(self) -> str:
        """A unique name, usable as a file name."""
        return f"{self.tier}-{self.kind}-{self.locale or 'default'}"


def render_all(config: Config, renderer: Renderer, *, now: datetime) -> Iterator[Sample]:
    """Render every kind of sample for every tier and language, as of ``now``."""
    for tier in config.tier_ladder:
        for kind, (name, tokens) in _kinds(tier, config.tier_ladder, now).items():
            for locale in ("", *renderer.translations):
                recipient = Recipient(
                    recipient_id="preview",  # no real person's id: a reader may click on the unsubscribe link
                    name=name,
                    address="ada@example.org",
                    locale=locale or None,
                    timezone=_ZONE_OF_TRANSLATIONS if locale else None,
                )
                content = renderer.render(recipient, tokens, now=now)
                yield Sample(
                    tier=tier.name, kind=kind, locale=locale, recipient=recipient, tokens=tokens, content=content
                )


def _kinds(tier: Tier, ladder: tuple[Tier, ...], now: datetime) -> dict[str, tuple[str | None, tuple[TokenFacts, ...]]]:
    """The recipient's name and the tokens of each kind of sample."""
    ada = "Ada Lovelace"
    first = _expiry(tier, now)

    def tokens(*names: str | None, scopes: tuple[str, ...] = _SCOPES) -> tuple[TokenFacts, ...]:
        step = -_STEP if tier.says_expired else _STEP
        return tuple(_token(number, name, first + number * step, now, scopes) for number, name in enumerate(names))

    others = [_expiry(other, now) for other in ladder if other.example(AGE) >= tier.example(AGE)]
    mixed = tuple(_token(n, f"deploy-{n}", expiry, now, _SCOPES) for n, expiry in enumerate(others))
    crowd = (f"build-{number:03d}" for number in range(MORE_THAN_LISTED))
    nothing_known = TokenFacts(
        token_id="1",  # noqa: S106 -- an id
        name=None,
        scopes=(),
        created_at=now - AGE,
        last_used_at=None,
        expires_at=first,
    )
    return {
        "one": (ada, tokens("laptop")),
        "five": (ada, tokens("laptop", "github-actions", "release robot", "nightly", "old server")),
        "many": (ada, tokens(*(f"build-{number:03d}" for number in range(MANY)))),
        "mixed": (ada, mixed),
        "crowded": (ada, (*tokens(*crowd), *mixed[1:])),
        "bare": (None, (nothing_known,)),
        "hostile": ("Eve <b>https://evil.example</b>", tokens(*_HOSTILE, scopes=("<i>all</i>", "crate: a.b/c"))),
        "long": (ada * 12, tokens(*_LONG, scopes=tuple(f"publish-update-of-package-{n}" for n in range(20)))),
        "rtl": ("عائشة", tokens(*_RIGHT_TO_LEFT)),
    }


def _expiry(tier: Tier, now: datetime) -> datetime:
    return now + tier.example(AGE) + (-SENT_OFF_BY if tier.says_expired else SENT_OFF_BY)


def _token(number: int, name: str | None, expires_at: datetime, now: datetime, scopes: tuple[str, ...]) -> TokenFacts:
    return TokenFacts(
        token_id=str(4711 + number),
        name=name,
        scopes=scopes,
        created_at=now - AGE,
        last_used_at=now - timedelta(days=2) if number % 2 == 0 else None,
        expires_at=expires_at,
    )
