"""Whether a database carries the condition on ids into the operator's query, read from its plan.

Where it does not, each batch of notices costs the whole query: it must say itself where the ids belong.
"""

import re
from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from token_pipelines.source.dialects import MYSQL, POSTGRES, SQLITE, Dialect

SAMPLE: Final = "31337"
"""An id to be recognised in a plan; it fits a smallint."""

_UUID: Final = f"000{SAMPLE}-0000-4000-8000-000000000000"

_NODE: Final = re.compile(r"^\s*(?:->\s+)?(.+?)\s+\(cost=")
_AFTERWARDS: Final = re.compile(r"^(Subquery|CTE|Materialize|WindowAgg|Result)\b")
"""Nodes of Postgres' plans that look at rows which were made already."""


def sample_id(kind: pa.DataType) -> str:
    """An id that this type of column can be compared with."""
    return _UUID if isinstance(kind, pa.UuidType) else SAMPLE


def reaches(plan: Sequence[str], dialect: Dialect) -> bool:
    """Whether this plan of a read by `sample_id` begins at the tables."""
    if dialect is POSTGRES:
        return _reaches_in_postgres(plan)
    if dialect is MYSQL:
        return not any("<derived" in line for line in plan)
    if dialect is SQLITE:
        return not any(re.search(r"\b(SCAN|SEARCH) source\b", line) for line in plan)
    return True


def _reaches_in_postgres(plan: Sequence[str]) -> bool:
    node = ""
    for line in plan:
        found = _NODE.match(line)
        if found:
            node = found[1]
        elif SAMPLE in line and not _AFTERWARDS.match(node):
            return True
    return False
