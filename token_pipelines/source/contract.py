"""What a query must return: columns, types, no nulls where it matters, one row per (token, recipient), zones.

A violation names the column and a sample row's id, and nothing is sent. Knows Arrow, not databases.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from token_pipelines.errors import SourceContractError, SourceError
from token_pipelines.policy import INSTANT, TOKEN_COLUMNS

REQUIRED: Final = ("token_id", "recipient_id", "created_at", "expires_at", "token_name", "recipient_name", "email")
INSTANTS: Final = ("created_at", "expires_at", "last_used_at", "replaced_at", "last_notified_at")
FLAGS: Final = {"email_verified": True, "revoked": False, "muted": False}
"""Optional booleans, and what counts where the query does not return the column. A null counts as False."""

NOT_NULL: Final = ("token_id", "recipient_id", "created_at", "expires_at")
TEXTS: Final = ("token_name", "recipient_name", "email", "locale", "timezone")
OPTIONAL: Final = ("last_used_at", "scopes", *FLAGS, "replaced_at", "last_notified_at", "locale", "timezone")

HAS_ADDRESS: Final = "(email IS NOT NULL AND trim(email) <> '') AS has_address"

FACT_COLUMNS: Final = (
    "token_name",
    "recipient_name",
    "email",
    "last_used_at",
    "scopes",
    "locale",
    "timezone",
)
"""What resolving adds to policy.TOKEN_COLUMNS: text or None, an instant or NaT, a tuple of scopes."""


@dataclass(frozen=True)
class Contract:
    """A query's columns, found to be what the contract asks for."""

    present: frozenset[str]
    zone: str | None

    @classmethod
    def check(cls, schema: pa.Schema, zone: str | None) -> "Contract":
        """Check column names and types.

        Raises:
            SourceContractError: naming the column and the cure.
        """
        for name in REQUIRED:
            if name not in schema.names:
                msg = (
                    f"The source query does not return {name}; add it to the SELECT (docs/sources tells what it means)."
                )
                raise SourceContractError(msg)
            if schema.names.count(name) > 1:
                msg = f"The source query returns {name} twice; keep one."
                raise SourceContractError(msg)
        for name in INSTANTS:
            if name in schema.names:
                _check_instant(name, schema.field(name).type, zone)
        for name in FLAGS:
            if name in schema.names and not pa.types.is_boolean(schema.field(name).type):
                msg = (
                    f"The source query's {name} is {schema.field(name).type}, not a boolean; compare or cast it in SQL."
                )
                raise SourceContractError(msg)
        for name in TEXTS:
            if name in schema.names and not _is_text(schema.field(name).type):
                msg = f"The source query's {name} is {schema.field(name).type}, not text; cast it to text in SQL."
                raise SourceContractError(msg)
        return cls(present=frozenset(schema.names), zone=zone)

    @property
    def snapshot_columns(self) -> list[str]:
        """SQL expressions of a snapshot: ids, times and flags, whether there is an address, never the address."""
        optional = [name for name in TOKEN_COLUMNS if name in OPTIONAL and name in self.present]
        return [_as_text("token_id"), _as_text("recipient_id"), "created_at", "expires_at", HAS_ADDRESS, *optional]

    @property
    def resolve_columns(self) -> list[str]:
        """SQL expressions of resolving: what a snapshot reads, and what the email says."""
        return [*self.snapshot_columns, *(name for name in FACT_COLUMNS if name in self.present)]

    def tokens(self, batch: pa.Table) -> pd.DataFrame:
        """A batch of rows as a frame of policy.TOKEN_COLUMNS.

        Raises:
            SourceError: for a null that must not be, or a recipient_id that is an address.
        """
        for name in NOT_NULL:
            if batch[name].null_count:
                where = pc.is_null(batch[name])
                other = "recipient_id" if name == "token_id" else "token_id"
                sample = batch.filter(where)[other][0].as_py()
                msg = f"The source query returns a null {name} ({other} {sample}); exclude or fill such rows in SQL."
                raise SourceError(msg)
        with_at = batch.filter(pc.match_substring(batch["recipient_id"], "@"))
        if with_at.num_rows:
            msg = (
                f"The source query's recipient_id holds an @ (token_id {with_at['token_id'][0].as_py()}): "
                "an address must not be stored; return the person's opaque id instead."
            )
            raise SourceError(msg)
        frame = {name: self._column(batch, name) for name in TOKEN_COLUMNS}
        return pd.DataFrame(frame)

    def _column(self, batch: pa.Table, name: str) -> pd.Series:
        column: pd.Series
        if name not in batch.column_names:
            fill = FLAGS.get(name, pd.NaT)
            return pd.Series([fill] * batch.num_rows, dtype=TOKEN_COLUMNS[name])
        values = batch[name]
        if name in INSTANTS:
            column = self._instants(values).to_pandas().astype(INSTANT)
        elif pa.types.is_boolean(values.type):
            column = values.fill_null(False).to_pandas()  # noqa: FBT003 -- Arrow's value to fill with
        else:
            column = values.cast(pa.string()).to_pandas().astype("str")
        return column

    def _instants(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """UTC, in microseconds. A naive value is taken in the source's zone: the earlier of a folded hour's two."""
        if column.type.tz is None:
            column = pc.assume_timezone(column, self.zone, ambiguous="earliest", nonexistent="latest")
        return column.cast(pa.timestamp("us", tz="UTC"))

    def facts(self, batch: pa.Table) -> pd.DataFrame:
        """A resolved batch: policy.TOKEN_COLUMNS and FACT_COLUMNS, objects where they are optional."""
        frame = self.tokens(batch)
        for name in FACT_COLUMNS:
            if name not in batch.column_names:
                values: list[object] = [None] * batch.num_rows
            elif name == "last_used_at":
                values = [value.as_py() for value in self._instants(batch[name])]
            elif name == "scopes":
                values = [_scopes(value) for value in batch[name].to_pylist()]
            else:
                values = batch[name].to_pylist()
            frame[name] = pd.Series(values, index=frame.index, dtype="object")
        return frame


def _check_instant(name: str, kind: pa.DataType, zone: str | None) -> None:
    if pa.types.is_date(kind):
        msg = (
            f"The source query's {name} is a DATE; say in SQL at which instant of that day it is meant, "
            f"for example ({name}::timestamp AT TIME ZONE 'UTC')."
        )
        raise SourceContractError(msg)
    if not pa.types.is_timestamp(kind):
        msg = (
            f"The source query's {name} is {kind}, not an instant; convert it in SQL, for example with to_timestamp()."
        )
        raise SourceContractError(msg)
    if kind.tz is None and zone is None:
        msg = f"The source query's {name} has no time zone; set source.timezone to the zone it is kept in."
        raise SourceContractError(msg)


def _is_text(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _is_text(kind.storage_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))


def _as_text(name: str) -> str:
    return f"CAST({name} AS text) AS {name}"


def _scopes(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(value.replace(",", " ").split())
    return tuple(str(scope) for scope in value if scope) if isinstance(value, Collection) else (str(value),)
