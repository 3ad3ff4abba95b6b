"""What a query must return: columns, their types, and no column that looks like a secret.

A violation names the column and the cure, and nothing is sent. Knows Arrow, not databases; `rows`
reads rows and `tokens` checks them.
"""

import re
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from token_pipelines.errors import SourceContractError
from token_pipelines.source.dialect import Dialect
from token_pipelines.token_facts import FACTS, Kind, Presence

_RETURNED: Final = [fact for fact in FACTS if fact.presence is not Presence.DERIVED]

REQUIRED: Final = tuple(fact.column for fact in _RETURNED if fact.presence is Presence.REQUIRED)
OPTIONAL: Final = tuple(fact.column for fact in _RETURNED if fact.presence is Presence.OPTIONAL)
NOT_NULL: Final = tuple(fact.column for fact in _RETURNED if fact.never_null)
KINDS: Final = {fact.column: fact.kind for fact in _RETURNED}
IDS: Final = tuple(name for name, kind in KINDS.items() if kind is Kind.ID)
INSTANTS: Final = tuple(name for name, kind in KINDS.items() if kind is Kind.INSTANT)
NEVER_NULL_INSTANTS: Final = tuple(name for name in INSTANTS if name in NOT_NULL)

DETAIL_COLUMNS: Final = tuple(fact.column for fact in _RETURNED if not fact.decides)
"""Columns that only the email needs: what resolving adds to TOKEN_COLUMNS. Text or None, an instant or NaT, a tuple of
scopes."""

_READ_EARLY: Final = tuple(
    fact.column
    for fact in _RETURNED
    if fact.presence is Presence.OPTIONAL and (fact.decides or fact.kind is Kind.INSTANT)
)
"""Optional columns that a snapshot reads. Instants that only the email says are among them, so that a bad one is
reported before anything is planned."""

_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SECRET: Final = re.compile(
    r"(^|_)(secret|passwords?|passwd|pwd|passphrase|passcode|digest|salt|plaintext|encrypted|hashed)(_|$)"
    r"|(^|_)(token|token_value|hash|jwt|bearer|credentials?)$|(^|(?<!fingerprint)_)(sha\d+|md5)$"
    r"|^key$|(api|access|private|secret|auth|signing|encryption|token)_?keys?(_pem|_der|_jwk)?$"
)
"""Names of columns that hold a secret or its hash, in lower case with underscores. Not token_name, token_type, key_id,
public_key, a public key's fingerprint or counters. Where it refuses a harmless column, the operator renames it."""

CITEXT: Final = "citext"
"""A type of text in Postgres that no driver knows. It is read as text, as every column of text is."""

_TWICE: Final = re.compile(r"(.+):\d+")
"""How SQLite names a column when an earlier one has the same name."""


@dataclass(frozen=True)
class Contract:
    """A query's columns, after they were checked."""

    schema: pa.Schema
    zone: str | None
    dialect: Dialect

    @classmethod
    def check(cls, schema: pa.Schema, zone: str | None, dialect: Dialect) -> "Contract":
        """Check column names and types. A column whose type only its rows can show (null) is checked with them.

        Raises:
            SourceContractError: naming the column and the cure.
        """
        known = {*REQUIRED, *OPTIONAL}
        for name in REQUIRED:
            if name not in schema.names:
                msg = (
                    f"The source query does not return {name}; add it to the SELECT (docs/sources tells what it means)."
                )
                raise SourceContractError(msg)
        names = [_name(column, dialect) for column in schema.names]
        for name in names:
            if name in known and names.count(name) > 1:
                msg = f"The source query returns {name} twice; keep one."
                raise SourceContractError(msg)
            if name not in known and _SECRET.search(_CAMEL.sub("_", name).lower()):
                msg = (
                    f"The source query returns {name}, which looks like a secret or its hash; leave it out of the "
                    "SELECT, or rename it there if it is none."
                )
                raise SourceContractError(msg)
        contract = cls(schema=schema, zone=zone, dialect=dialect)
        contract.check_types(schema)
        return contract

    def check_types(self, schema: pa.Schema) -> None:
        """Check the types of the contract's columns among these.

        Raises:
            SourceContractError: naming the column and the cure.
        """
        for field in schema:
            fault = self._fault(field.name, field.type)
            if fault is not None:
                msg = f"The source query's {field.name} {fault}."
                raise SourceContractError(msg)

    @property
    def present(self) -> frozenset[str]:
        """The names of the query's columns."""
        return frozenset(self.schema.names)

    @property
    def key_columns(self) -> list[str]:
        """SQL expressions of the ids."""
        return [self.dialect.id_as_text.format(name=name) for name in IDS]

    @property
    def snapshot_columns(self) -> list[str]:
        """SQL expressions of a snapshot: ids, times and flags, whether there is an address, never the address."""
        optional = [name for name in _READ_EARLY if name in self.present]
        return [*self.key_columns, "created_at", "expires_at", self.dialect.has_address, *optional]

    @property
    def resolve_columns(self) -> list[str]:
        """SQL expressions of resolving: what a snapshot reads, and what only the email needs."""
        read = self.snapshot_columns
        return [*read, *(self._detail(name) for name in DETAIL_COLUMNS if name in self.present and name not in read)]

    def _detail(self, name: str) -> str:
        """The SQL expression of a column that only the email needs, of a limited length."""
        kind = self.schema.field(name).type
        if KINDS[name] is Kind.SCOPES and pa.types.is_list(kind):
            return self.dialect.flat_array.format(name=name)
        return self.dialect.shortened.format(name=name)

    def _fault(self, name: str, kind: pa.DataType) -> str | None:
        """What is wrong with this column, and its cure."""
        if pa.types.is_null(kind) or name not in KINDS:
            return None
        check = {
            Kind.ID: self._id_fault,
            Kind.INSTANT: self._instant_fault,
            Kind.FLAG: self._flag_fault,
            Kind.TEXT: _text_fault,
            Kind.SCOPES: _scopes_fault,
        }[KINDS[name]]
        return check(name, kind)

    def _instant_fault(self, name: str, kind: pa.DataType) -> str | None:
        if pa.types.is_date(kind):
            example = self.dialect.from_date.format(name=name)
            return f"is a DATE; say in SQL at which instant of that day it is meant, for example {example}"
        if _is_number(kind):
            example = self.dialect.from_epoch.format(name=name)
            others = self.dialect.other_numbers.format(name=name)
            return f"is {kind}, a number and not an instant; if it counts seconds since 1970, write {example}; {others}"
        if _is_text(kind) and self.dialect.text_instants:
            return None
        if not pa.types.is_timestamp(kind):
            return (
                f"is {kind}, not an instant; convert it in SQL, for example {self.dialect.from_text.format(name=name)}"
            )
        if kind.tz is None and self.zone is None:
            return "has no time zone; set source.timezone to the zone it is kept in"
        return None

    def _id_fault(self, name: str, kind: pa.DataType) -> str | None:
        if self.dialect.has_booleans:  # Postgres gives every id as text
            return None
        if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return f"is binary, which is no text; write {self.dialect.binary_as_text.format(name=name)}"
        if pa.types.is_integer(kind) or pa.types.is_decimal(kind) or _is_text(kind):
            return None
        return f"is {kind}, which has no one way to be written; cast it to text in SQL"

    def _flag_fault(self, _: str, kind: pa.DataType) -> str | None:
        if pa.types.is_boolean(kind) or (pa.types.is_integer(kind) and not self.dialect.has_booleans):
            return None
        return f"is {kind}, not a boolean; compare or cast it in SQL"


def _text_fault(_: str, kind: pa.DataType) -> str | None:
    return None if _is_text(kind) else f"is {kind}, not text; cast it to text in SQL"


def _scopes_fault(_: str, kind: pa.DataType) -> str | None:
    if pa.types.is_list(kind) or _is_text(kind):
        return None
    return f"is {kind}; return an array of text, or text with blanks or commas"


def _name(column: str, dialect: Dialect) -> str:
    again = _TWICE.fullmatch(column) if dialect.text_instants else None
    return again[1].lower() if again else column


def _is_number(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return getattr(kind, "type_name", None) == "numeric"  # as ADBC gives it
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _is_text(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return getattr(kind, "type_name", None) == CITEXT or (not _is_number(kind) and _is_text(kind.storage_type))
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
