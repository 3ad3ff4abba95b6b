"""Tiers in the config: which are refused, and the ladder that they make."""

import re
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.config import Load, sample

from token_pipelines.config import Config, TierConfig
from token_pipelines.tiers import Remaining


@pytest.mark.parametrize(
    ("tier", "said"),
    [
        ({"name": "week"}, "tier week needs either before (like 7d) or after (like 0d)"),
        ({"name": "week", "before": "7d", "after": "0d", "within": "3d"}, "tier week needs either before"),
        ({"name": "week", "before": "23h"}, "tier week: before must be at least 1d"),
        (
            {"name": "week", "before": "7d", "within": "1d"},
            "tier week: within goes with after (like 0d), and with nothing",
        ),
        (
            {"name": "gone", "after": "0d"},
            "tier gone: after also needs within (at least 1d): for how long after that the notice may",
        ),
        (
            {"name": "gone", "after": "0d", "within": "23h"},
            "tier gone: after also needs within (at least 1d): for how long after that the notice may",
        ),
        ({"name": "soon", "remaining": "10%"}, "tier soon: remaining needs at_most (like 60d), at least 1d"),
        ({"name": "soon", "remaining": "10%", "at_most": "23h"}, "tier soon: remaining needs at_most (like 60d), at l"),
        (
            {"name": "soon", "remaining": "10%", "at_most": "60d", "within": "3d"},
            "tier soon: within goes with after (like 0d), and with nothing else",
        ),
        ({"name": "soon", "remaining": "10%", "at_most": "60d", "before": "7d"}, "tier soon needs either before"),
        ({"name": "week", "before": "7d", "at_most": "60d"}, "tier week: at_most goes with remaining (like 10%)"),
        ({"name": "soon", "at_most": "60d"}, "tier soon needs either before (like 7d) or after (like 0d) or remaining"),
        ({"name": "7_days", "before": "7d"}, "name '7_days' must be lower case letters, digits and _"),
        ({"name": "Week", "before": "7d"}, "name 'Week' must be lower case letters"),
        ({"name": "a/b", "before": "7d"}, "name 'a/b' must be lower case letters"),
        ({"name": "week\n", "before": "7d"}, r"name 'week\n' must be lower case letters"),
        ({"name": "w" * 32, "before": "7d"}, "must be lower case letters"),
    ],
)
def test_tier_that_makes_no_sense_is_refused(refusal: Callable[..., str], tier: dict[str, object], said: str) -> None:
    refused = refusal(tiers=[tier])
    name = str(tier["name"])
    assert f": tiers.{name if re.fullmatch('[a-z0-9_]{1,31}', name) else 1}: " in refused, "named, or counted from one"
    assert said in refused


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("10%", Fraction(1, 10)),
        ("12.5 %", Fraction(1, 8)),
        ("0.01%", Fraction(1, 10_000)),
        ("99.99%", Fraction(9999, 10_000)),
    ],
)
def test_share_of_a_lifetime_is_read_exactly(load_with: Load, written: str, meant: Fraction) -> None:
    (tier,) = load_with(tiers=[{"name": "soon", "remaining": written, "at_most": "60d"}]).tier_ladder
    assert tier == Remaining(name="soon", remaining=meant, at_most=timedelta(days=60))


@pytest.mark.parametrize(
    "written", ["100%", "0%", "0.00%", "0.001%", "-1%", "10", 10, 0.1, True, "ten", "10%%", "1e1%"]
)
def test_share_of_a_lifetime_that_cannot_be_is_refused(refusal: Callable[..., str], written: object) -> None:
    said = refusal(tiers=[{"name": "soon", "remaining": written, "at_most": "60d"}])
    assert said.endswith(
        f"tiers.soon.remaining: {written!r} is not a share of a lifetime; write it like 10% or 12.5%, "
        "above 0% and below 100%."
    )


@pytest.mark.parametrize(
    "tier",
    [
        {"before": "1d"},
        {"remaining": "1%", "at_most": "1d"},
        {"after": "0d", "within": "1d"},
        {"after": "30d", "within": "1d"},
    ],
)
def test_tier_at_its_bounds_loads(tier: dict[str, object]) -> None:
    assert TierConfig.model_validate({"name": "t", **tier}).name == "t"


def test_two_tiers_of_one_name_are_refused(refusal: Callable[..., str]) -> None:
    said = refusal(tiers=[{"name": "week", "before": "7d"}, {"name": "week", "before": "8d"}])
    assert said.endswith(": tiers: two tiers have the same name; each needs its own.")


def test_two_tiers_at_one_instant_are_refused(refusal: Callable[..., str]) -> None:
    said = refusal(tiers=[{"name": "week", "before": "7d"}, {"name": "seven", "before": "1w"}])
    assert said.endswith(": tiers: two tiers begin at the same instant; drop one of them.")


def test_two_shares_of_one_lead_are_refused_when_they_are_the_same(refusal: Callable[..., str]) -> None:
    soon = {"name": "soon", "remaining": "10%", "at_most": "60d"}
    said = refusal(tiers=[soon, {"name": "again", "remaining": "10.0%", "at_most": "60d"}])
    assert said.endswith(": tiers: two tiers begin at the same instant; drop one of them.")


def test_ladder_of_one_lead_puts_the_smaller_share_first(load_with: Load) -> None:
    tiers = [
        {"name": "fixed", "before": "60d"},
        {"name": "fifth", "remaining": "20%", "at_most": "60d"},
        {"name": "tenth", "remaining": "10%", "at_most": "60d"},
    ]
    assert [tier.name for tier in load_with(tiers=tiers).tier_ladder] == ["tenth", "fifth", "fixed"]


@given(st.permutations(["before: 30d", "before: 7d", "before: 1d", "after: 0d", "after: 2d"]))
def test_ladder_is_most_urgent_first_in_whatever_order_it_is_written(steps: list[str]) -> None:
    tiers = []
    for number, step in enumerate(steps):
        side, length = step.split(": ")
        tiers.append({"name": f"t{number}", side: length} | ({"within": "3d"} if side == "after" else {}))
    config = Config(**sample(tiers=tiers))
    assert [tier.longest_lead for tier in config.tier_ladder] == [timedelta(days=days) for days in (-2, 0, 1, 7, 30)]
