"""Reading a notice's tokens again before sending: what is dropped, and for which reason. Against a real source."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any

import pytest
from support.pipeline import DAY, NOW, YEAR, MakePipeline, Registry

from token_pipelines.delivery.resolving import ResolvedNotice, resolve
from token_pipelines.model import DueToken, Notice, Reason, Recipient, State, TokenFacts
from token_pipelines.pipeline import Pipeline

SECOND = timedelta(seconds=1)
GRACE = timedelta(hours=2)
LEADS = {"expired": timedelta(), "day": DAY, "week": 7 * DAY, "month": 30 * DAY}
SOON = NOW + DAY
IDS = [f"00000000-0000-4000-8000-{number:012d}" for number in range(3)]

RENEW = """
INSERT INTO api_tokens (user_id, name, created_at, expired_at)
SELECT user_id, name, created_at + interval '1 hour', expired_at + interval '1 year' FROM api_tokens
"""

MakeParts = Callable[..., Pipeline]


@pytest.fixture
def ada(registry: Registry) -> int:
    return registry.user("ada", email="ada@example.org", name="Ada")


@pytest.fixture
def parts_with(make_pipeline: MakePipeline) -> Iterator[MakeParts]:
    """Build the parts, with changes to the config's section ``delivery``, or with other ``tiers``."""
    with ExitStack() as stack:

        def make(tiers: Sequence[dict[str, str]] = (), **delivery: object) -> Pipeline:
            sections: dict[str, Any] = {"tiers": tiers} if tiers else {}
            parts = make_pipeline(25, delivery=delivery, **sections).parts(NOW)
            stack.callback(parts.ledger.close)
            parts.ledger.migrate()
            return parts

        yield make


@pytest.fixture
def parts(parts_with: MakeParts) -> Pipeline:
    return parts_with()


def notice(recipient: int, *tokens: tuple[str, str, datetime], notice_id: str = IDS[0]) -> Notice:
    """A claimed notice; each token with the tier at which it was planned, and its expiry then."""
    return Notice(
        notice_id=notice_id,
        recipient_id=str(recipient),
        tier=tokens[0][1] if tokens else "day",
        message_id=f"<{notice_id}@example.org>",
        claimed_from=State.PLANNED,
        attempts=0,
        first_tried_at=None,
        tokens=tuple(
            DueToken(token_id=token_id, expires_at=expires_at, threshold=expires_at - LEADS[tier], tier=tier)
            for token_id, tier, expires_at in tokens
        ),
    )


def letter(parts: Pipeline, asked: Notice, now: datetime = NOW) -> ResolvedNotice:
    (found,) = resolve(parts, [asked], now)
    return found


def reason(parts: Pipeline, asked: Notice, now: datetime = NOW) -> Reason | None:
    """Why a notice is not sent at all; None when it is."""
    found = letter(parts, asked, now)
    if found.recipient is not None:
        assert found.dropped == {}
        return None
    assert found.tokens == ()
    assert set(found.dropped.values()) == {found.reason}
    return found.reason


def test_letter_says_what_the_source_says_now(registry: Registry, ada: int, parts: Pipeline) -> None:
    token = registry.token(ada, expires_at=SOON, name="ci <b>", last_used_at=NOW - DAY, endpoint_scopes=["yank"])
    found = letter(parts, notice(ada, (token, "day", SOON)))
    assert found.recipient == Recipient(recipient_id=str(ada), name="Ada", address="ada@example.org")
    assert found.tokens == (
        TokenFacts(
            token_id=token,
            name="ci <b>",
            scopes=("yank",),
            created_at=SOON - YEAR,
            last_used_at=NOW - DAY,
            expires_at=SOON,
        ),
    )
    assert found.dropped == {}
    assert found.address_hash == parts.ledger.hash_address("ada@example.org")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("DELETE FROM api_tokens", Reason.GONE),
        ("UPDATE api_tokens SET expired_at = NULL", Reason.GONE),
        ("UPDATE api_tokens SET user_id = user_id + 1", Reason.GONE),
        ("UPDATE api_tokens SET revoked = true", Reason.REVOKED),
        ("UPDATE api_tokens SET expired_at = expired_at + interval '1 microsecond'", Reason.RENEWED),
        ("UPDATE api_tokens SET expired_at = expired_at + interval '1 year'", Reason.RENEWED),
        ("UPDATE api_tokens SET expired_at = expired_at - interval '1 hour'", Reason.RENEWED),
        ("DELETE FROM emails", Reason.NO_ADDRESS),
        ("UPDATE emails SET email = ' '", Reason.NO_ADDRESS),
        ("UPDATE emails SET verified = false", Reason.UNVERIFIED_ADDRESS),
        ("UPDATE emails SET email = 'ada at example.org'", Reason.BAD_ADDRESS),
        ("UPDATE emails SET email = E'ada@example.org\\r\\nBcc: eve@example.org'", Reason.BAD_ADDRESS),
        ("UPDATE emails SET email = E'\\t'", Reason.BAD_ADDRESS),
        ("UPDATE emails SET email = '  ada@example.org  '", None),
        ("UPDATE api_tokens SET expiry_notification_at = now()", None),
        ("UPDATE api_tokens SET name = 'another'", None),
    ],
)
def test_change_meanwhile(registry: Registry, ada: int, parts: Pipeline, change: str, expected: Reason | None) -> None:
    token = registry.token(ada, expires_at=SOON)
    registry.user("eve", email="eve@example.org")
    registry.execute(change)
    assert reason(parts, notice(ada, (token, "day", SOON))) == expected


@pytest.mark.parametrize(
    ("left", "expected"), [(SECOND, None), (timedelta(), Reason.EXPIRED_MEANWHILE), (-SECOND, Reason.EXPIRED_MEANWHILE)]
)
def test_before_notice_of_a_token_that_died_is_dropped(
    registry: Registry, ada: int, parts: Pipeline, left: timedelta, expected: Reason | None
) -> None:
    """Never "expires soon" of a dead token; the tier for dead ones speaks of it, later."""
    token = registry.token(ada, expires_at=NOW + left)
    assert reason(parts, notice(ada, (token, "day", NOW + left))) == expected


@pytest.mark.parametrize(("step", "expected"), [(timedelta(), None), (-SECOND, None), (SECOND, Reason.OUTSIDE_TIERS)])
def test_after_notice_whose_time_is_over_is_dropped(
    registry: Registry, ada: int, parts: Pipeline, step: timedelta, expected: Reason | None
) -> None:
    expiry = NOW - 3 * DAY - GRACE - step
    token = registry.token(ada, expires_at=expiry)
    assert reason(parts, notice(ada, (token, "expired", expiry))) == expected


def test_notice_that_a_more_urgent_tier_has_overtaken_is_dropped(registry: Registry, ada: int, parts: Pipeline) -> None:
    token = registry.token(ada, expires_at=SOON)
    assert reason(parts, notice(ada, (token, "week", SOON))) is Reason.SUPERSEDED
    assert reason(parts, notice(ada, (token, "day", SOON))) is None


def test_notice_of_a_tier_not_yet_reached_is_still_sent(registry: Registry, ada: int, parts: Pipeline) -> None:
    """That it is merely no longer due, say because a tier was moved, is no reason to keep silent."""
    expiry = NOW + 20 * DAY
    token = registry.token(ada, expires_at=expiry)
    assert reason(parts, notice(ada, (token, "week", expiry))) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("UPDATE api_tokens SET revoked = true", Reason.REVOKED),
        (RENEW, Reason.REPLACED),
        ("DELETE FROM emails", Reason.NO_ADDRESS),
        ("UPDATE emails SET email = ' '", Reason.NO_ADDRESS),
        ("UPDATE emails SET email = E'\\t'", Reason.BAD_ADDRESS),
        ("UPDATE emails SET verified = false", Reason.UNVERIFIED_ADDRESS),
        ("UPDATE emails SET email = 'ada at example.org'", Reason.BAD_ADDRESS),
        ("UPDATE api_tokens SET expired_at = expired_at + interval '1 year'", Reason.RENEWED),
        ("UPDATE api_tokens SET name = 'another'", None),
    ],
)
@pytest.mark.parametrize(
    "tiers", [[{"name": "soon", "before": "3d"}], [{"name": "month", "before": "30d"}]], ids=["outside", "too short"]
)
def test_change_meanwhile_counts_where_no_tier_answers_any_more(
    registry: Registry,
    ada: int,
    parts_with: MakeParts,
    tiers: list[dict[str, str]],
    change: str,
    expected: Reason | None,
) -> None:
    """The notice was planned as of a tier that was moved since, or one for which the token lives too short a time."""
    expiry = NOW + 5 * DAY
    token = registry.token(ada, expires_at=expiry, lifetime=10 * DAY)
    registry.execute(change)
    assert reason(parts_with(tiers), notice(ada, (token, "week", expiry))) == expected


def test_recipient_left_out_of_the_rollout_is_dropped_where_no_tier_answers_any_more(
    registry: Registry, ada: int, parts_with: MakeParts
) -> None:
    expiry = NOW + 5 * DAY
    token = registry.token(ada, expires_at=expiry)
    parts = parts_with([{"name": "soon", "before": "3d"}], only_recipients=[ada + 1])
    assert reason(parts, notice(ada, (token, "week", expiry))) is Reason.NOT_IN_ROLLOUT


@pytest.mark.parametrize("email", [None, float("nan"), "", " ", "\t", "\u00a0"])
def test_address_that_is_none_is_never_a_fault_of_ours(
    registry: Registry, ada: int, parts: Pipeline, monkeypatch: pytest.MonkeyPatch, email: str | float | None
) -> None:
    """Even where a source calls it one: an error here would stop the tier, in every run."""
    token = registry.token(ada, expires_at=SOON)
    facts = parts.source.resolve({token})
    monkeypatch.setattr(parts.source, "resolve", lambda _: facts.assign(email=email))
    assert reason(parts, notice(ada, (token, "day", SOON))) is Reason.BAD_ADDRESS


def test_recipient_outside_the_rollout_is_dropped(registry: Registry, ada: int, parts_with: MakeParts) -> None:
    token = registry.token(ada, expires_at=SOON)
    asked = notice(ada, (token, "day", SOON))
    assert reason(parts_with(rollout_percent=0), asked) is Reason.NOT_IN_ROLLOUT
    assert reason(parts_with(only_recipients=[ada + 1]), asked) is Reason.NOT_IN_ROLLOUT
    assert reason(parts_with(only_recipients=[ada]), asked) is None


def test_suppressed_address_is_dropped_however_it_is_written(registry: Registry, ada: int, parts: Pipeline) -> None:
    token = registry.token(ada, expires_at=SOON)
    parts.ledger.suppressions.add([parts.ledger.hash_address("ADA@example.org")], at=NOW, cause="refused")
    assert reason(parts, notice(ada, (token, "day", SOON))) is Reason.SUPPRESSED
    registry.execute("UPDATE emails SET email = 'lovelace@example.org'")
    assert reason(parts, notice(ada, (token, "day", SOON))) is None


def test_redirect_writes_to_the_operator_about_the_recipient(
    registry: Registry, ada: int, parts_with: MakeParts
) -> None:
    token = registry.token(ada, expires_at=SOON)
    parts = parts_with(mode="redirect", redirect_to="ops@example.org")
    parts.ledger.suppressions.add([parts.ledger.hash_address("ada@example.org")], at=NOW, cause="refused")
    found = letter(parts, notice(ada, (token, "day", SOON)))
    assert found.recipient == Recipient(recipient_id=str(ada), name="Ada", address="ops@example.org")
    assert found.address_hash == parts.ledger.hash_address("ops@example.org")


def test_each_token_is_dropped_for_its_own_reason(registry: Registry, ada: int, parts: Pipeline) -> None:
    living = registry.token(ada, expires_at=SOON)
    revoked = registry.token(ada, expires_at=SOON, revoked=True)
    renewed = registry.token(ada, expires_at=SOON + YEAR)
    tokens = [(token, "day", SOON) for token in (revoked, living, renewed, "999")]
    found = letter(parts, notice(ada, *tokens))
    assert [facts.token_id for facts in found.tokens] == [living]
    assert found.recipient is not None
    assert found.dropped == {revoked: Reason.REVOKED, renewed: Reason.RENEWED, "999": Reason.GONE}


def test_notice_without_any_token_left_names_the_most_frequent_reason(
    registry: Registry, ada: int, parts: Pipeline
) -> None:
    revoked = [registry.token(ada, expires_at=SOON, revoked=True) for _ in range(2)]
    found = letter(parts, notice(ada, ("999", "day", SOON), *((token, "day", SOON) for token in revoked)))
    assert (found.recipient, found.tokens, found.reason) == (None, (), Reason.REVOKED)


def test_notices_come_back_in_their_order_each_to_its_own_recipient(
    registry: Registry, ada: int, parts: Pipeline
) -> None:
    bob = registry.user("bob", email="bob@example.org", name="Bob")
    of_ada, of_bob = registry.token(ada, expires_at=SOON), registry.token(bob, expires_at=SOON)
    asked = [
        notice(bob, (of_bob, "day", SOON), notice_id=IDS[0]),
        notice(ada, (of_ada, "day", SOON), notice_id=IDS[1]),
        notice(ada, (of_bob, "day", SOON), notice_id=IDS[2]),
    ]
    found: list[Any] = resolve(parts, asked, NOW)
    assert [(each.notice.notice_id, each.recipient and each.recipient.address) for each in found] == [
        (IDS[0], "bob@example.org"),
        (IDS[1], "ada@example.org"),
        (IDS[2], None),
    ]
    assert found[2].reason is Reason.GONE, "a token of somebody else is none of this recipient's"


def test_notice_without_tokens_is_skipped(ada: int, parts: Pipeline) -> None:
    found = letter(parts, notice(ada))
    assert found.recipient is None
    assert found.reason in {Reason.GONE, Reason.SUPERSEDED}
