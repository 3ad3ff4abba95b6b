"""Checks the rows that a query returned and makes them tokens: canonical ids, instants in UTC, flags.

Vectorised, a batch at a time. A bad row is reported in one sentence with its id, and nothing is sent.
"""

from datetime import UTC
from functools import partial
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from token_pipelines.source import instants, row_errors, scopes
from token_pipelines.source.bounds import Bounds
from token_pipelines.source.contract import DETAIL_COLUMNS, IDS, INSTANTS, NOT_NULL, Contract
from token_pipelines.source.readable import UNREADABLE, apart, has_readable_ids, readable
from token_pipelines.token_facts import FACTS, TOKEN_COLUMNS, Kind

_ARROW: Final = {"str": pa.string(), "bool": pa.bool_()}

TOKENS: Final = pa.schema([(name, _ARROW.get(kind, instants.UTC)) for name, kind in TOKEN_COLUMNS.items()])
"""TOKEN_COLUMNS in Arrow's types."""

UNKNOWN: Final = "unknown"
"""Stands for the column where none alone is at fault."""

_FACTS: Final = {fact.column: fact for fact in FACTS}


def check(rows: pa.Table, contract: Contract, bounds: Bounds) -> pa.Table:
    """The rows as tokens: columns TOKENS, those in the window only. A row that cannot be read says so in UNREADABLE.

    Raises:
        SourceContractError: for a column of the wrong type.
        SourceError: for a row that breaks the contract.
    """
    contract.check_types(rows.schema)
    rows = readable(rows)
    fine = pc.equal(rows[UNREADABLE], "")
    make, stand_in = partial(_checked, contract=contract, bounds=bounds), partial(_stand_in, contract=contract)
    made = apart(rows.filter(fine), make, stand_in)
    odd = rows.filter(pc.invert(fine))
    if odd.num_rows:  # what else is wrong with them refuses nobody
        made += apart(odd, make, stand_in, forgive=True)
    return pa.concat_tables(made)


def facts(rows: pa.Table, contract: Contract, bounds: Bounds) -> pd.DataFrame:
    """Resolved rows: TOKEN_COLUMNS and DETAIL_COLUMNS, objects where they are optional.

    Rows whose ids cannot be read are left out: nobody asked for them.
    """
    contract.check_types(rows.schema)
    rows = readable(rows)
    rows = rows.filter(has_readable_ids(rows))
    fine = pc.equal(rows[UNREADABLE], "")
    make, stand_in = partial(_facts, contract=contract, bounds=bounds), partial(_facts_missing, contract=contract)
    made = apart(rows.filter(fine), make, stand_in)
    odd = rows.filter(pc.invert(fine))
    if odd.num_rows:
        made += apart(odd, make, stand_in, forgive=True)
    return pd.concat(made, ignore_index=True)


def _checked(rows: pa.Table, contract: Contract, bounds: Bounds) -> pa.Table:
    return _tokens(_inside(rows, contract, bounds), contract)


def _facts(rows: pa.Table, contract: Contract, bounds: Bounds) -> pd.DataFrame:
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
            values = [scopes.parse(value) for value in _listed(rows[name])]
        else:
            values = rows[name].to_numpy().tolist()
        frame[name] = pd.Series(values, index=frame.index, dtype="object")
    return frame


def _stand_in(row: pa.Table, contract: Contract) -> pa.Table:
    """One row of which not every value can be made: its ids, and the column at fault."""
    culprit = row[UNREADABLE][0].as_py() or _culprit(row, contract)
    known = {name: str(row[name][0].as_py()) for name in IDS} | {UNREADABLE: culprit}
    values = {field.name: known.get(field.name, _FACTS[field.name].absent) for field in TOKENS}
    flags = {field.name: bool(values[field.name]) for field in TOKENS if pa.types.is_boolean(field.type)}
    return pa.Table.from_pylist([values | flags], schema=TOKENS)


def _facts_missing(row: pa.Table, contract: Contract) -> pd.DataFrame:
    return without_facts(_stand_in(row, contract))


def _culprit(row: pa.Table, contract: Contract) -> str:
    """The column of this row that cannot be made a value of ours."""
    for name in row.column_names:
        try:
            if name in INSTANTS:
                instants.to_utc(row, name, contract.zone, contract.dialect).to_pylist()
            else:
                row[name].to_pylist()
        except Exception:  # noqa: BLE001 -- whatever it is that cannot be done with this value
            return str(name)
    return UNKNOWN


def unreadable(keys: pa.Table, culprit: str, contract: Contract) -> pa.Table:
    """These rows, of which the database gives only the ids, as tokens: columns TOKENS."""
    rows = readable(keys)
    named = pc.if_else(pc.equal(rows[UNREADABLE], ""), culprit, rows[UNREADABLE])
    return stand_ins(rows.set_column(rows.schema.get_field_index(UNREADABLE), UNREADABLE, named), contract)


def stand_ins(rows: pa.Table, contract: Contract) -> pa.Table:
    """Rows of `readable` that cannot be read, as tokens: columns TOKENS."""
    made = [_stand_in(rows.slice(row, 1), contract) for row in range(rows.num_rows)]
    return pa.concat_tables([TOKENS.empty_table(), *made])


def without_facts(tokens: pa.Table) -> pd.DataFrame:
    """Tokens that cannot be read, as `facts` gives them; those whose ids cannot be read are left out."""
    frame = to_frame(tokens.filter(has_readable_ids(tokens)))
    return frame.assign(**{name: pd.Series([None] * len(frame), dtype="object") for name in DETAIL_COLUMNS})


def _listed(column: pa.ChunkedArray) -> list[object]:
    """Values of the column ``scopes``. Those of an array may be octets that are no UTF-8."""
    kind = column.type
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        column = column.cast(pa.list_(pa.binary()))
    values: list[object] = column.to_pylist()
    return values


def no_facts() -> pd.DataFrame:
    """What `facts` gives of no rows."""
    frame = to_frame(TOKENS.empty_table())
    return frame.assign(**{name: pd.Series(dtype="object") for name in DETAIL_COLUMNS})


def to_frame(tokens: pa.Table) -> pd.DataFrame:
    """Tokens as the policy takes them."""
    frame: pd.DataFrame = tokens.to_pandas().astype(TOKEN_COLUMNS)
    return frame


def _inside(rows: pa.Table, contract: Contract, bounds: Bounds) -> pa.Table:
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
