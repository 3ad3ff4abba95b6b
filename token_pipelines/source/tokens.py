"""Checks the rows that a query returned and makes them tokens: canonical ids, instants in UTC, flags.

Vectorised, a batch at a time. A bad row is reported in one sentence with its id, and nothing is sent.
"""

import json
from collections.abc import Collection
from datetime import UTC
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from token_pipelines.source import instants, row_errors
from token_pipelines.source.bounds import Bounds
from token_pipelines.source.contract import DETAIL_COLUMNS, IDS, INSTANTS, NOT_NULL, Contract
from token_pipelines.token_facts import FACTS, TOKEN_COLUMNS, Kind

_ARROW: Final = {"str": pa.string(), "bool": pa.bool_()}

TOKENS: Final = pa.schema([(name, _ARROW.get(kind, instants.UTC)) for name, kind in TOKEN_COLUMNS.items()])
"""TOKEN_COLUMNS in Arrow's types."""

_FACTS: Final = {fact.column: fact for fact in FACTS}


def check(rows: pa.Table, contract: Contract, bounds: Bounds) -> pa.Table:
    """The rows as tokens: columns TOKENS, those in the window only.

    Raises:
        SourceContractError: for a column of the wrong type.
        SourceError: for a row that breaks the contract.
    """
    return _tokens(_inside(rows, contract, bounds), contract)


def facts(rows: pa.Table, contract: Contract, bounds: Bounds) -> pd.DataFrame:
    """Resolved rows: TOKEN_COLUMNS and DETAIL_COLUMNS, objects where they are optional."""
    rows = _inside(rows, contract, bounds)
    frame = to_frame(_tokens(rows, contract))
    for name in DETAIL_COLUMNS:
        if name not in rows.column_names:
            values: list[object] = [None] * rows.num_rows
        elif _FACTS[name].kind is Kind.INSTANT:
            # By numpy, and not Arrow's to_pylist, which makes one instant in the time of ten.
            utc = instants.to_utc(rows, name, contract.zone, contract.dialect).cast(pa.timestamp("us")).to_numpy()
            values = [instant and instant.replace(tzinfo=UTC) for instant in utc.tolist()]
        elif _FACTS[name].kind is Kind.SCOPES:
            values = [_scopes(value) for value in rows[name].to_pylist()]
        else:
            values = rows[name].to_numpy().tolist()
        frame[name] = pd.Series(values, index=frame.index, dtype="object")
    return frame


def no_facts() -> pd.DataFrame:
    """What `facts` gives of no rows."""
    frame = to_frame(TOKENS.empty_table())
    return frame.assign(**{name: pd.Series(dtype="object") for name in DETAIL_COLUMNS})


def to_frame(tokens: pa.Table) -> pd.DataFrame:
    """Tokens as the policy takes them."""
    frame: pd.DataFrame = tokens.to_pandas().astype(TOKEN_COLUMNS)
    return frame


def _inside(rows: pa.Table, contract: Contract, bounds: Bounds) -> pa.Table:
    contract.check_types(rows.schema)
    _refuse_nulls(rows)
    _refuse_addresses(rows)
    expires_at = instants.to_utc(rows, "expires_at", contract.zone, contract.dialect)
    for name in INSTANTS:
        if name not in TOKEN_COLUMNS and name in rows.column_names:  # not kept: converted only to refuse a bad one
            instants.to_utc(rows, name, contract.zone, contract.dialect)
    rows = rows.set_column(rows.schema.get_field_index("expires_at"), "expires_at", expires_at)
    return bounds.inside(rows, expires_at)


def _tokens(rows: pa.Table, contract: Contract) -> pa.Table:
    return pa.Table.from_arrays([_column(rows, field, contract) for field in TOKENS], schema=TOKENS)


def _column(rows: pa.Table, field: pa.Field, contract: Contract) -> pa.ChunkedArray:
    name = field.name
    if name not in rows.column_names:
        value = pa.scalar(_FACTS[name].absent, field.type)
        return pa.chunked_array([pa.repeat(value, rows.num_rows)])
    kind = _FACTS[name].kind
    if kind is Kind.INSTANT:
        return instants.to_utc(rows, name, contract.zone, contract.dialect)
    return _flag(rows, name) if kind is Kind.FLAG else rows[name].cast(pa.string())


def _flag(rows: pa.Table, name: str) -> pa.ChunkedArray:
    """A null counts as false. MariaDB, MySQL and SQLite have numbers for booleans."""
    values = rows[name]
    if not pa.types.is_boolean(values.type) and not pa.types.is_null(values.type):
        odd = pc.invert(pc.is_in(values, pa.array([0, 1, None], values.type)))
        row_errors.refuse(
            rows, odd, f"The source query's {name} is a number other than 0 and 1 {{row}}", "compare it in SQL"
        )
    return pc.fill_null(values.cast(pa.bool_()), False)  # noqa: FBT003 -- Arrow's value to fill with


def _refuse_nulls(rows: pa.Table) -> None:
    for name in NOT_NULL:
        if rows[name].null_count:
            fault = f"The source query returns a null {name} {{row}}"
            row_errors.refuse(rows, pc.is_null(rows[name]), fault, "exclude or fill such rows in SQL")


def _refuse_addresses(rows: pa.Table) -> None:
    for name in IDS:
        cure = "an address must not be stored: return the person's opaque id instead"
        fault = f"The source query's {name} holds an @ {{row}}"
        row_errors.refuse(rows, pc.match_substring(rows[name].cast(pa.string()), "@"), fault, cure)


def _scopes(value: object) -> tuple[str, ...]:
    """From an array, a JSON array, or text with blanks or commas."""
    if isinstance(value, str) and value.startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            value = str(value)
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(value.replace(",", " ").split())
    return tuple(str(scope) for scope in value if scope) if isinstance(value, Collection) else (str(value),)
