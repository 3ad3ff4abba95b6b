from dataclasses import fields
from datetime import timedelta
from fractions import Fraction

import pytest

from token_pipelines.tiers import KINDS, After, Before, Remaining, Tier, span_in_words


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(days=1), "1 day"),
        (timedelta(days=30), "30 days"),
        (timedelta(days=1, hours=12), "1 day and 12 hours"),
        (timedelta(minutes=90), "1 hour and 30 minutes"),
        (timedelta(), "0 days"),
    ],
)
def test_span_in_words(span: timedelta, words: str) -> None:
    assert span_in_words(span) == words


@pytest.mark.parametrize(
    ("tier", "sentence"),
    [
        (
            Before(name="week", before=timedelta(days=7)),
            "Emails to owners of tokens that expire within 7 days.",
        ),
        (
            Remaining(name="soon", remaining=Fraction(1, 8), at_most=timedelta(days=60)),
            "Emails to owners of tokens that have 12.5 % of their lifetime left, 60 days at most.",
        ),
        (
            After(name="expired", after=timedelta(), within=timedelta(days=3)),
            "Emails to owners of tokens that have expired, sent until 3 days after the expiry.",
        ),
        (
            After(name="late", after=timedelta(days=2), within=timedelta(days=3)),
            "Emails to owners of tokens that expired at least 2 days ago, sent until 5 days after the expiry.",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Tier) else "",
)
def test_tier_in_words(tier: Tier, sentence: str) -> None:
    assert tier.describe() == sentence


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.key)
def test_kind_is_known_by_a_key_that_no_other_has(kind: type[Tier]) -> None:
    assert [other for other in KINDS if kind.key in {field.name for field in fields(other)}] == [kind]


@pytest.mark.parametrize(
    ("tier", "lead"),
    [
        (Before(name="week", before=timedelta(days=7)), timedelta(days=7)),
        (After(name="late", after=timedelta(days=2), within=timedelta(days=3)), -timedelta(days=2)),
        (Remaining(name="tenth", remaining=Fraction(1, 10), at_most=timedelta(days=60)), timedelta(days=10)),
        (Remaining(name="half", remaining=Fraction(1, 2), at_most=timedelta(days=60)), timedelta(days=60)),
        (Remaining(name="late", remaining=Fraction(1, 1000), at_most=timedelta(days=60)), timedelta(days=1)),
    ],
    ids=lambda value: value.name if isinstance(value, Tier) else "",
)
def test_example_is_the_lead_of_a_token_that_is_ninety_days_old(tier: Tier, lead: timedelta) -> None:
    assert tier.example(timedelta(days=90)) == lead


def test_tier_that_makes_no_sense_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="tier week: before must be at least 1d"):
        Before(name="week", before=timedelta(hours=23))
