"""Rows of a driver as Arrow columns. A column's type follows its values, where the driver does not say it."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa

from token_pipelines.errors import SourceContractError

ToArray = Callable[[str, pa.DataType | None, Sequence[Any]], pa.Array]


def table(
    names: Sequence[str], types: Sequence[pa.DataType | None], rows: Sequence[Sequence[Any]], to_array: ToArray
) -> pa.Table:
    """The rows as a table; ``to_array`` makes each column of its name, type and values."""
    values = list(zip(*rows, strict=True)) or [()] * len(names)
    arrays = [to_array(*column) for column in zip(names, types, values, strict=True)]
    return pa.Table.from_arrays(arrays, names=list(names))


def array(name: str, kind: pa.DataType | None, values: Sequence[Any]) -> pa.Array:
    """A column of this type, or of the type that the values have; ids of several types become text.

    Raises:
        SourceContractError: if the values are of several types.
    """
    kinds = {type(value) for value in values if value is not None}
    if kinds and kinds <= {int, str, UUID, Decimal} and kinds not in ({int}, {str}):
        values = [None if value is None else str(value) for value in values]
    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, UnicodeEncodeError):
        found = " and ".join(sorted(each.__name__ for each in kinds))
        msg = f"The source query's {name} holds values of several types ({found}); cast it to one in SQL."
        raise SourceContractError(msg) from None
