from datetime import timedelta
from fractions import Fraction

import pytest

from token_pipelines.defs.descriptions import COLUMN_SCHEMA
from token_pipelines.tiers import After, Before, Remaining, Tier, span_in_words
from token_pipelines.token_facts import TOKEN_COLUMNS


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
def test_describe(tier: Tier, sentence: str) -> None:
    assert tier.describe() == sentence


def test_every_column_is_described() -> None:
    assert [column.name for column in COLUMN_SCHEMA.columns] == [*TOKEN_COLUMNS, "tier", "threshold", "reason"]
    assert [column.name for column in COLUMN_SCHEMA.columns if not column.description] == []
