"""A source to read: the window, a query to change, what it refuses."""

from collections.abc import Callable
from datetime import timedelta

import pandas as pd
import pytest

from support.pipeline import DAY, NOW
from token_pipelines.errors import TokenPipelinesError
from token_pipelines.policy import Window
from token_pipelines.source.source import Source
from token_pipelines.token_facts import TOKEN_COLUMNS

WINDOW = Window(expires_after=NOW - 3 * DAY, expires_before=NOW + 30 * DAY)
MOMENT = timedelta(microseconds=1)

OpenSource = Callable[..., Source]

COLUMNS = {
    "token_id": "id",
    "recipient_id": "user_id",
    "created_at": "created_at",
    "expires_at": "expired_at",
    "token_name": "name",
    "recipient_name": "'Ada'::text",
    "email": "'ada@example.org'::text",
}


def select(tables: str = "api_tokens", condition: str = "true", **changes: str) -> str:
    """A query as an operator writes it; ``changes`` replace a column's expression, or add one."""
    columns = ", ".join(f"{what} AS {name}" for name, what in (COLUMNS | changes).items())
    between = "expired_at >= :expires_after AND expired_at < :expires_before"
    return f"SELECT {columns} FROM {tables} WHERE {condition} AND {between}"  # noqa: S608 -- a test's own


def select_without(name: str) -> str:
    return select().replace(f"{COLUMNS[name]} AS {name}, ", "").replace(f", {COLUMNS[name]} AS {name}", "")


def snapshot(source: Source, window: Window = WINDOW) -> pd.DataFrame:
    frames = list(source.snapshot(window))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(TOKEN_COLUMNS))


def refusal(source: Source, kind: type[TokenPipelinesError]) -> str:
    """The one sentence with which a snapshot is refused."""
    with pytest.raises(kind) as caught:
        snapshot(source)
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith(".")
    assert caught.value.__context__ is None or caught.value.__suppress_context__, "no cause that may quote values"
    return said
