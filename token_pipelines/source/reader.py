"""What a reader of the operator's database does, whatever the database."""

from collections.abc import Collection, Generator
from datetime import timedelta
from typing import Protocol

import pyarrow as pa

from token_pipelines.source.deadline import Deadline
from token_pipelines.source.dialect import Dialect
from token_pipelines.source.query import Statement


class Reader(Protocol):
    """Reads statements, each on a connection of its own: read-only, in UTC, with the timeouts of the config.

    Instants come as Arrow timestamps: with a zone where the database knows it, else without one.
    Every method raises SourceContractError where the database refuses the query, else SourceError. Its ``may_pass`` is
    true where a new connection may help: after a replica's conflict, or a lost connection.
    """

    @property
    def dialect(self) -> Dialect:
        """How this database writes what we ask."""

    def schema(self, statement: Statement) -> pa.Schema:
        """The columns of a statement that returns no rows; type null where only rows can tell."""

    def read(self, statement: Statement, deadline: Deadline) -> Generator[pa.Table]:
        """The rows, in small tables. Close it. The statement is interrupted at the deadline."""

    def reaches_tables(self, statement: Statement, token_ids: Collection[str]) -> bool | None:
        """Whether, by the database's plan, a read of these tokens searches the tables for them; None if unknown."""

    def lag(self) -> timedelta | None:
        """How far a replica is behind its primary, ``timedelta.max`` if it cannot say; None for no replica."""
