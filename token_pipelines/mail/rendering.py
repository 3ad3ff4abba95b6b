"""Renders one notice as subject, text and HTML. The templates hold the sentences; this module gives them the facts.

Does not send, does not encode, and does not decide who is told.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple, NotRequired, TypedDict

from babel import Locale

from token_pipelines import config
from token_pipelines.mail import dates, links, locales, remaining
from token_pipelines.mail.names import clean, shows, unlinked
from token_pipelines.mail.templates import PARTS, Language, Templates
from token_pipelines.model import Recipient, TokenFacts

LISTED_AT_MOST: Final = 50  # tokens listed in one email; nobody reads more
HTML_AT_MOST: Final = 100_000  # octets; Gmail cuts the HTML off at 102 KB, and hides its end
SCOPES_AT_MOST: Final = 12  # scopes listed of one token
_ONE_OF_EACH: Final = 2  # an expired token and one that is not
_OCTETS_A_CHARACTER: Final = 4  # in UTF-8, at most
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


class _Shown(NamedTuple):
    """What a template knows about one token, formatted; ``""`` where the source does not say.

    The text part shows the name and the scopes unchanged, so that they can be copied and searched for. The HTML part
    shows them ``unlinked``.
    """

    name: str
    scopes: str
    hidden_scopes: int  # how many scopes are not listed
    created: str
    last_used: str
    expires: str
    expires_utc: str  # "" if ``expires`` is in UTC already
    expired: bool
    remaining: str
    renew: str | None  # None if the operator set no such link


class _Facts(TypedDict):
    """The variables of a template. Counts are of all tokens; the lists hold the listed ones, in order of expiry."""

    service: str
    breaks: str  # what an expired token stops, "" if the config does not say
    recipient_name: str  # "" when unknown
    count: int
    expired: list[_Shown]
    expired_count: int
    expiring: list[_Shown]
    expiring_count: int
    soonest: str  # time until the next token expires, in full; "" if all have expired
    soonest_roughly: str
    hidden: int  # how many tokens are not listed
    manage: str
    unsubscribe: str | None
    subject: NotRequired[str]  # in bodies only


class Renderer:
    """The templates of one folder, compiled and tried out when loaded. Safe to use from any thread."""

    def __init__(self, folder: Path, email: config.Email) -> None:
        """Load every template, and render samples to find faults.

        Raises:
            TemplateError: a template is missing, does not parse or uses an unknown variable.
            ConfigError: a link cannot be filled in.
        """
        links.check(email.links)
        self._email = email
        self._service = clean(email.service, _SERVICE_LIMIT, stand_in="this service")
        self._breaks = clean(email.breaks, _SERVICE_LIMIT, stand_in="")
        self._templates = Templates(folder, notices=(_EXPIRING, _EXPIRED), variables=set(_Facts.__annotations__))
        self._try_out()

    @property
    def translations(self) -> tuple[str, ...]:
        """The locales with their own templates, in lower case: ``de``, ``pt_br``."""
        return self._templates.translations

    def render(self, recipient: Recipient, tokens: Sequence[TokenFacts], *, now: datetime) -> Content:
        """Render one notice about ``tokens``, at least one, in any order. ``now`` is the time of sending.

        Raises:
            TemplateError: a template fails on these facts.
            ValueError: there are no tokens.
        """
        if not tokens:
            msg = "a notice needs at least one token"
            raise ValueError(msg)
        ordered = sorted(tokens, key=lambda token: token.expires_at)
        listed = min(len(ordered), LISTED_AT_MOST)
        content = self._write(recipient, ordered, now, listed)
        while (size := _size(content.html)) > HTML_AT_MOST and listed > _ONE_OF_EACH:
            listed = max(_ONE_OF_EACH, listed * HTML_AT_MOST // size)
            content = self._write(recipient, ordered, now, listed)
        return content

    def _write(self, recipient: Recipient, ordered: list[TokenFacts], now: datetime, listed: int) -> Content:
        """Render the notice with at most ``listed`` tokens in its lists."""
        notice = _EXPIRED if ordered[0].expires_at <= now else _EXPIRING
        language = self._templates.language(notice, recipient.locale)
        facts = self._facts(recipient, ordered, now, language, listed)
        line = self._templates.render(f"{language.folder}/{_SUBJECT}", facts)
        facts["subject"] = subject = clean(line, _SUBJECT_LIMIT, stand_in=self._service)
        text = self._templates.render(f"{language.folder}/{_TEXT}", facts)
        facts["recipient_name"] = unlinked(facts["recipient_name"])
        facts["expired"] = [_unlinked(shown) for shown in facts["expired"]]
        facts["expiring"] = [_unlinked(shown) for shown in facts["expiring"]]
        html = self._templates.render(f"{language.folder}/{_HTML}", facts)
        return Content(subject=subject, text=text.strip() + "\n", html=html.strip() + "\n")

    def _facts(
        self, recipient: Recipient, ordered: list[TokenFacts], now: datetime, language: Language, listed: int
    ) -> _Facts:
        expired_count = sum([token.expires_at <= now for token in ordered])
        words, date_locale = language.locale, locales.known(recipient.locale)
        chosen = _chosen(len(ordered), expired_count, listed)
        shown = [self._shown(recipient, token, now, words, date_locale) for token in ordered[chosen]]
        shown_expired = expired_count - chosen.start
        expiring = shown[shown_expired:]  # empty only if all tokens have expired
        to_all = self._email.links
        return _Facts(
            service=self._service,
            breaks=self._breaks,
            recipient_name=clean(recipient.name, stand_in=""),
            count=len(ordered),
            expired=shown[:shown_expired],
            expired_count=expired_count,
            expiring=expiring,
            expiring_count=len(ordered) - expired_count,
            soonest=expiring[0].remaining if expiring else "",
            soonest_roughly=remaining.roughly(ordered[expired_count].expires_at, now, words) if expiring else "",
            hidden=len(ordered) - len(shown),
            manage=links.fill(to_all.manage, recipient_id=recipient.recipient_id),
            unsubscribe=to_all.unsubscribe and links.fill(to_all.unsubscribe, recipient_id=recipient.recipient_id),
        )

    def _shown(
        self,
        recipient: Recipient,
        token: TokenFacts,
        now: datetime,
        words: Locale | None,
        date_locale: Locale | None,
    ) -> _Shown:
        zone = recipient.timezone
        renew = self._email.links.renew
        scopes, hidden_scopes = _scopes(token.scopes)
        return _Shown(
            name=clean(token.name, stand_in=""),
            scopes=scopes,
            hidden_scopes=hidden_scopes,
            created=dates.day(token.created_at, zone, date_locale),
            # None also if the source has no such column; so the templates say "as far as we know".
            last_used=dates.day(token.last_used_at, zone, date_locale) if token.last_used_at else "",
            expires=dates.instant(token.expires_at, zone, date_locale),
            expires_utc=dates.in_utc(token.expires_at, zone, date_locale),
            expired=token.expires_at <= now,
            remaining=remaining.in_words(token.expires_at, now, words),
            renew=renew and links.fill(renew, recipient_id=recipient.recipient_id, token_id=token.token_id),
        )

    def _try_out(self) -> None:
        """Find faults that only rendering shows: ``token.nmae``, a macro's missing argument."""
        now = datetime(2026, 11, 20, 9, tzinfo=UTC)
        many = range(1, LISTED_AT_MOST + 2)
        for hours in ((1,), (1, 30), (-1,), (-1, -2), (-1, 1), (-1, -2, 1, 30), many, (-1, *many)):
            tokens = [_sample(now, hour) for hour in hours]
            for locale in (None, *self.translations):
                for name, zone in (("Ada", "Asia/Tokyo"), (None, None)):
                    ada = Recipient(
                        recipient_id="1", name=name, address="ada@example.org", locale=locale, timezone=zone
                    )
                    self.render(ada, tokens, now=now)


def _chosen(count: int, expired_count: int, listed: int) -> slice:
    """Choose the listed ones of ``count`` tokens in order of expiry, of which the first ``expired_count`` have expired.

    Tokens that have not expired take precedence, the soonest first, since their owner can still act; then those that
    expired last. At least one expired token is always listed, if there is one: it is why the notice is sent, and the
    templates mention it.
    """
    expiring = min(count - expired_count, listed - min(expired_count, 1))
    return slice(expired_count - min(expired_count, listed - expiring), expired_count + expiring)


def _unlinked(shown: _Shown) -> _Shown:
    """The token as the HTML part shows it: most often unchanged."""
    name, scopes = unlinked(shown.name), unlinked(shown.scopes)
    return shown if name == shown.name and scopes == shown.scopes else shown._replace(name=name, scopes=scopes)


@lru_cache(maxsize=256)  # a platform has few combinations
def _scopes(scopes: tuple[str, ...]) -> tuple[str, int]:
    """Join the scopes up to the limit, and count the others. Those without a visible character are left out.

    Only what is listed is cleaned: a token may have a thousand scopes.
    """
    seen: list[str] = []
    for position, scope in enumerate(scopes):
        if len(seen) == SCOPES_AT_MOST:
            return ", ".join(seen), sum(map(shows, scopes[position:]))
        if shown := clean(scope, stand_in=""):
            seen.append(shown)
    return ", ".join(seen), 0


def _size(html: str) -> int:
    """Size in octets. For a short HTML, as nearly all are, an upper bound, which needs no encoding."""
    most = len(html) * _OCTETS_A_CHARACTER
    return most if most <= HTML_AT_MOST else len(html.encode())


def _sample(now: datetime, hours: int) -> TokenFacts:
    return TokenFacts(
        token_id="1",  # noqa: S106 -- an id
        name="sample" if hours % 3 else None,
        scopes=("publish",) * (hours % (SCOPES_AT_MOST + 2)),
        created_at=now - timedelta(days=90),
        last_used_at=now if hours % 2 else None,
        expires_at=now + timedelta(hours=hours),
    )
