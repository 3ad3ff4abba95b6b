"""Scopes become one flat list, however they are kept and whatever somebody has put into them."""

from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from token_pipelines.source import scopes


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, ()),
        ("", ()),
        ("read,write all", ("read", "write", "all")),
        ('["read", "write all"]', ("read", "write all")),
        (' ["read"]', ("read",)),
        ("[odd", ("[odd",)),
        ("[]", ()),
        ('["a", ["b", [["c"]]], null, 5, true, {"d": "e"}]', ("a", "b", "c", "5", "true", "d", "e")),
        (r'["a\"b", "\u00fc", "\ud83d\ude00"]', ('a"b', "ü", "😀")),
        (r'["\ud83d"]', ("?",)),
        (r'["\x"]', (r"\x",)),
        ('["cut off, "here', ("cut off, ", "here")),
        ('["cut', ("cut",)),
        ("[" * 1100, ()),
        ("[" * 1100 + '"deep"' + "]" * 1100, ("deep",)),
        (["read", None, "", "write"], ("read", "write")),
        ([["a"], [["b"], "c"], []], ("a", "b", "c")),
        ([b"J\xfcrgen"], ("J\ufffdrgen",)),
        (7, ("7",)),
    ],
)
def test_scopes_are_flat(value: object, found: tuple[str, ...]) -> None:
    assert scopes.parse(value) == found


def test_nested_lists_of_any_depth_do_not_recurse() -> None:
    nested: list[object] = ["deep"]
    for _ in range(100_000):
        nested = [nested]
    assert scopes.parse(nested) == ("deep",)
    while nested and isinstance(nested[0], list):  # freed from outside to inside: freeing it at once recurses in C
        nested = nested[0]


def test_count_and_length_are_limited() -> None:
    found = scopes.parse(["x" * 5000] * 5000)
    assert (len(found), {len(scope) for scope in found}) == (scopes.AT_MOST, {scopes.LONGEST})


@pytest.mark.parametrize("text", ["[" + '"\\' * 2047, '["' + '\\"' * 2047, "[" * 4096, '["a"' + "," * 4000])
def test_hostile_text_costs_little(text: str) -> None:
    started = process_time()
    scopes.parse(text)
    assert process_time() - started < 1


@given(st.text(alphabet='[]{},:"\\ua1 -n', max_size=60))
def test_any_text_gives_scopes_that_can_be_written(text: str) -> None:
    assert all(scope.encode() for scope in scopes.parse(text))
