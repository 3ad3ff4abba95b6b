"""Reports a bad row: the column, the row's id, the cure. Never another value: it may be an address."""

import pyarrow as pa
import pyarrow.compute as pc

from token_pipelines.errors import SourceError


def refuse(rows: pa.Table, where: pa.ChunkedArray, fault: str, cure: str) -> None:
    """Raise a SourceError if ``where`` is true for a row; ``{row}`` in ``fault`` becomes the id of the first one."""
    if pc.any(where).as_py():
        msg = f"{fault.format(row=sample(rows, where))}; {cure}."
        raise SourceError(msg)


def sample(rows: pa.Table, where: pa.ChunkedArray) -> str:
    """The id of the first row for which ``where`` is true: its token's, or its recipient's where that is null."""
    row = rows.select(["token_id", "recipient_id"]).filter(where).slice(0, 1).to_pylist()[0]
    name = "recipient_id" if row["token_id"] is None else "token_id"
    value = str(row[name])
    return f"({name} {'…' if '@' in value else value})"
