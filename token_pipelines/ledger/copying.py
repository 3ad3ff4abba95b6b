"""Bulk reading and writing with COPY: Arrow formats and parses the text.

Row by row, Python would take longer than Postgres, and a million rows as Python objects take half a gigabyte. Knows
nothing about notices; works in the caller's transaction.
"""

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from psycopg import sql
from sqlalchemy import Connection, Select, text

from token_pipelines.ledger.connections import in_schema
from token_pipelines.token_facts import INSTANT

ROWS_A_PIECE: Final = 65_536
"""Rows formatted at a time: a few megabytes, however many rows there are."""

BYTES_A_PIECE: Final = 4 << 20
"""How much text to collect before Arrow parses it."""

_TEXT: Final = pyarrow.csv.WriteOptions(include_header=False, batch_size=ROWS_A_PIECE, quoting_style="needed")

_QUOTED: Final = pyarrow.csv.ParseOptions(newlines_in_values=True)
_SESSION: Final = text("SELECT set_config('datestyle', 'ISO', true), set_config('timezone', 'UTC', true)")
"""Makes Postgres write instants in a form that Arrow reads, until the transaction ends."""

_KINDS: Final = {"str": pa.large_string(), "bool": pa.bool_(), INSTANT: pa.timestamp("us", tz="UTC")}

_UUID_BYTES: Final = 16
_UUID_LENGTH: Final = 36
_UUID_GROUPS: Final = ((0, 8), (9, 13), (14, 18), (19, 23), (24, 36))  # of digits, in 8-4-4-4-12
_HEX_DIGITS: Final = np.frombuffer(b"0123456789abcdef", np.uint8)


def copy_in(connection: Connection, table: str, rows: pa.Table) -> None:
    """Append rows to the columns of the same names. A null becomes NULL; instants must have a zone.

    Strings are always quoted and nulls never, so that COPY can tell an empty string from NULL.
    """
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, rows.column_names))
    )
    written = pa.table({name: _as_text(rows[name]) for name in rows.column_names})
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for start in range(0, written.num_rows, ROWS_A_PIECE):
            piece = io.BytesIO()
            pyarrow.csv.write_csv(written.slice(start, ROWS_A_PIECE), piece, _TEXT)
            copy.write(piece.getbuffer())


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Instants as text in UTC. Arrow's own conversion looks up the zone for each row, and is ten times slower."""
    if not pa.types.is_timestamp(column.type):
        return column
    naive = column.cast(pa.timestamp(column.type.unit))
    return pc.binary_join_element_wise(naive.cast(pa.string()), "Z", "")


def copy_out(connection: Connection, query: Select[*tuple[Any, ...]], columns: Mapping[str, str]) -> pa.Table:
    """A query's rows. ``columns`` gives the name and dtype of each: ``str``, ``bool`` or token_facts.INSTANT."""
    connection.execute(_SESSION)
    compiled = query.compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
    statement = in_schema(connection, str(compiled))
    kinds = {name: _KINDS[dtype] for name, dtype in columns.items()}
    driver: Any = connection.connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY ({statement}) TO STDOUT (FORMAT csv)", compiled.params) as copy:
        return pa.concat_tables([pa.schema(kinds).empty_table(), *(_read(piece, kinds) for piece in _pieces(copy))])


def _pieces(rows: Iterable[memoryview]) -> Iterator[bytes]:
    """Join rows into pieces of some megabytes. Postgres sends whole rows, so every piece ends with one."""
    gathered: list[memoryview] = []
    size = 0
    for row in rows:
        gathered.append(row)
        size += len(row)
        if size >= BYTES_A_PIECE:
            yield b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)


def _read(piece: bytes, kinds: dict[str, pa.DataType]) -> pa.Table:
    """COPY's text as a table: an empty string is quoted, NULL is an empty field, a boolean is t or f."""
    convert = pyarrow.csv.ConvertOptions(
        column_types=kinds,
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
        true_values=["t"],
        false_values=["f"],
    )
    named = pyarrow.csv.ReadOptions(column_names=list(kinds))
    return pyarrow.csv.read_csv(pa.BufferReader(piece), named, _QUOTED, convert)


def random_uuids(count: int) -> pa.Array:
    """Make version 4 UUIDs, as strings in ascending order: inserting rows in this order keeps the index compact."""
    raw = np.frombuffer(os.urandom(_UUID_BYTES * count), np.uint8).reshape(count, _UUID_BYTES).copy()
    raw[:, 6] = raw[:, 6] & 0x0F | 0x40  # the version
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80  # RFC 9562's variant
    raw = raw[np.lexsort(raw.view(">u8").T[::-1])]
    digits = np.empty((count, 2 * _UUID_BYTES), np.uint8)
    digits[:, 0::2], digits[:, 1::2] = _HEX_DIGITS[raw >> 4], _HEX_DIGITS[raw & 0x0F]
    written = np.full((count, _UUID_LENGTH), ord("-"), np.uint8)
    taken = 0
    for start, end in _UUID_GROUPS:
        written[:, start:end] = digits[:, taken : taken + end - start]
        taken += end - start
    offsets = np.arange(count + 1, dtype=np.int64) * _UUID_LENGTH
    return pa.Array.from_buffers(
        pa.large_string(), count, [None, pa.py_buffer(offsets), pa.py_buffer(written.tobytes())]
    )
