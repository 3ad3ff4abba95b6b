"""Reads what a database says of how it would run a statement. Knows the form of Postgres' EXPLAIN (FORMAT JSON)."""

import re
from collections.abc import Collection, Iterator
from typing import Any, Final

_CONDITIONS: Final = ("Index Cond", "Recheck Cond", "Filter", "Hash Cond", "Merge Cond", "Join Filter")
_ELSEWHERE: Final = "Foreign Scan"
"""What it asks of the other server is not shown."""


def filter_reaches_tables(plan: dict[str, Any], token_ids: Collection[str]) -> bool:
    """Whether these ids are looked for where tables are read, not only in the rows of a finished sub-select."""
    return any(
        node["Node Type"] == _ELSEWHERE or ("Relation Name" in node and _asks_for(node, token_ids))
        for node in _nodes(plan)
    )


def _asks_for(node: dict[str, Any], token_ids: Collection[str]) -> bool:
    said = " ".join(str(node[name]) for name in _CONDITIONS if name in node)
    return all(re.search(rf"(?<!\w){re.escape(token_id)}(?!\w)", said) for token_id in token_ids)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)
