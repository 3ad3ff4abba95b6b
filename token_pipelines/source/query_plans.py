"""Reads what a database says of how it would run a statement: does it carry the condition on ids into the query?

Where it does not, each batch of notices costs the whole query, which must then say itself where the ids belong.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

from token_pipelines.source.dialects import MYSQL, SQLITE, Dialect

_CONDITIONS: Final = ("Index Cond", "Recheck Cond", "Filter", "Hash Cond", "Merge Cond", "Join Filter")
_ELSEWHERE: Final = "Foreign Scan"
"""What it asks of the other server is not shown."""


def reaches_in_postgres(plan: dict[str, Any], token_ids: Collection[str]) -> bool:
    """From EXPLAIN (FORMAT JSON): whether tables are searched for these ids, not only a finished sub-select's rows."""
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


def reaches_in_rows(plan: Sequence[str], dialect: Dialect) -> bool | None:
    """From the lines of EXPLAIN: whether no sub-select is carried out first. Databases we do not know: None."""
    if dialect is MYSQL:
        return not any("<derived" in line for line in plan)
    if dialect is SQLITE:
        return not any(re.search(r"\b(SCAN|SEARCH) source\b", line) for line in plan)
    return None
