"""One notice as subject, text and HTML. Which words are used is the templates' business; which facts they get is ours.

Does not send, does not encode, and does not decide who is told.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final

from babel import Locale

from token_pipelines import config
from token_pipelines.mail import dates, links, locales, remaining
from token_pipelines.mail.names import clean, unlinked
from token_pipelines.mail.templates import PARTS, Language, Templates
from token_pipelines.model import Recipient, TokenFacts

LISTED_AT_MOST: Final = 50  # tokens in one email; nobody reads more, and Gmail cuts the HTML off at 102 KB
SCOPES_AT_MOST: Final = 12  # scopes named of one token
_SUBJECT_LIMIT: Final = 200
_SERVICE_LIMIT: Final = 100
_EXPIRING: Final = "token-expiring"
_EXPIRED: Final = "token-expired"
_SUBJECT, _TEXT, _HTML = PARTS


@dataclass(frozen=True, slots=True)
class Content:
    """What a notice says. ``subject`` is one line."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class _Shown:
    """What templates know of one token, all of it in words; "" is what the source does not say."""

    name: str
    scopes: str
    hidden_scopes: int  # scopes beyond those named
    created: str
    last_used: str
    expires: str
    expires_utc: str  # "" where ``expires`` is in UTC already
    remaining: str
    renew: str | None  # None without such a link


@dataclass(frozen=True, slots=True)
class _Facts:
    """The variables of a template. The counts are of all tokens, the lists hold the shown ones, most urgent first."""

    service: str
    recipient_name: str  # "" when unknown
    count: int
    expired: list[_Shown]
    expired_count: int
    expiring: list[_Shown]
    expiring_count: int
    soonest: str  # until the first living token expires, in full; "" when none lives
    soonest_roughly: str
    hidden: int  # tokens beyond those shown
    manage: str
    unsubscribe: str | None
    subject: str = ""  # known to the bodies only


_VARIABLES: Final = tuple(field.name for field in fields(_Facts))


class Renderer:
    """The templates of one folder, compiled and tried out once; rendering is then safe from any thread."""

    def __init__(self, folder: Path, email: config.Email) -> None:
        """Load every template.

        Raises:
            TemplateError: a template is missing, does not parse or names something unknown.
            ConfigError: a link cannot be filled in.
        """
        links.check(email.links)
        self._email = email
        self._service = clean(email.service, _SERVICE_LIMIT, stand_in="this service")
        self._templates = Templates(folder, notices=(_EXPIRING, _EXPIRED), variables=set(_VARIABLES))
        self._try_out()

    @property
    def translations(self) -> tuple[str, ...]:
        """The locales that have templates of their own, in lower case: ``de``, ``pt_br``."""
        return self._templates.translations

    def render(self, recipient: Recipient, tokens: Sequence[TokenFacts], *, now: datetime) -> Content:
        """One notice to ``recipient`` about ``tokens``, at least one, in any order; ``now`` is the time of sending.

        Raises:
            TemplateError: a template fails on these facts.
            ValueError: there are no tokens.
        """
        if not tokens:
            msg = "a notice needs at least one token"
            raise ValueError(msg)
        ordered = sorted(tokens, key=lambda token: token.expires_at)
        notice = _EXPIRED if ordered[0].expires_at <= now else _EXPIRING
        language = self._templates.language(notice, recipient.locale)
        facts = self._facts(recipient, ordered, now, language)
        variables = {name: getattr(facts, name) for name in _VARIABLES}
        line = self._templates.render(f"{language.folder}/{_SUBJECT}", variables)
        variables["subject"] = subject = clean(line, _SUBJECT_LIMIT, stand_in=self._service)
        text = self._templates.render(f"{language.folder}/{_TEXT}", variables)
        html = self._templates.render(f"{language.folder}/{_HTML}", variables)
        return Content(subject=subject, text=text.strip() + "\n", html=html.strip() + "\n")

    def _facts(self, recipient: Recipient, ordered: list[TokenFacts], now: datetime, language: Language) -> _Facts:
        dead = sum(token.expires_at <= now for token in ordered)
        manner = locales.known(recipient.locale)
        words = language.locale
        shown = [self._shown(recipient, token, now, words, manner) for token in ordered[:LISTED_AT_MOST]]
        first_living = ordered[dead].expires_at if dead < len(ordered) else None
        to_all = self._email.links
        return _Facts(
            service=self._service,
            recipient_name=unlinked(clean(recipient.name, stand_in="")),
            count=len(ordered),
            expired=shown[:dead],
            expired_count=dead,
            expiring=shown[dead:],
            expiring_count=len(ordered) - dead,
            soonest="" if first_living is None else remaining.in_words(first_living, now, words),
            soonest_roughly="" if first_living is None else remaining.roughly(first_living, now, words),
            hidden=len(ordered) - len(shown),
            manage=links.fill(to_all.manage, recipient_id=recipient.recipient_id),
            unsubscribe=to_all.unsubscribe and links.fill(to_all.unsubscribe, recipient_id=recipient.recipient_id),
        )

    def _shown(
        self, recipient: Recipient, token: TokenFacts, now: datetime, words: Locale | None, manner: Locale | None
    ) -> _Shown:
        zone = recipient.timezone
        renew = self._email.links.renew
        return _Shown(
            name=unlinked(clean(token.name, stand_in="")),
            scopes=_scopes(token.scopes[:SCOPES_AT_MOST]),
            hidden_scopes=max(0, len(token.scopes) - SCOPES_AT_MOST),
            created=dates.day(token.created_at, zone, manner),
            # A source without this column looks the same as a token that nobody has used.
            last_used=dates.day(token.last_used_at, zone, manner) if token.last_used_at else "",
            expires=dates.instant(token.expires_at, zone, manner),
            expires_utc=dates.beside(token.expires_at, zone, manner),
            remaining=remaining.in_words(token.expires_at, now, words),
            renew=renew and links.fill(renew, recipient_id=recipient.recipient_id, token_id=token.token_id),
        )

    def _try_out(self) -> None:
        """Find at load what only rendering shows: ``token.nmae``, a macro's missing argument."""
        now = datetime(2026, 11, 20, 9, tzinfo=UTC)
        for hours in ((1,), (1, 30), (-1,), (-1, -2), (-1, 1), (-1, -2, 1, 30), range(1, LISTED_AT_MOST + 2)):
            tokens = [_sample(now, hour) for hour in hours]
            for locale in (None, *self.translations):
                for name, zone in (("Ada", "Asia/Tokyo"), (None, None)):
                    ada = Recipient(
                        recipient_id="1", name=name, address="ada@example.org", locale=locale, timezone=zone
                    )
                    self.render(ada, tokens, now=now)


@lru_cache(maxsize=4096)  # a platform has few combinations
def _scopes(scopes: tuple[str, ...]) -> str:
    return unlinked(", ".join(clean(scope) for scope in scopes))


def _sample(now: datetime, hours: int) -> TokenFacts:
    return TokenFacts(
        token_id="1",  # noqa: S106 -- an id
        name="sample" if hours % 3 else None,
        scopes=("publish",) * (hours % (SCOPES_AT_MOST + 2)),
        created_at=now - timedelta(days=90),
        last_used_at=now if hours % 2 else None,
        expires_at=now + timedelta(hours=hours),
    )
