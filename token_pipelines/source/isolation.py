"""Reads tokens of which the database fails on some rows: finds these rows, and reads all others.

The ids alone are read first, then the rows by id. A batch that fails is halved until single tokens are left; of these
the column at fault is sought. Only a failure on a row's value is halved; every other error passes through.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from token_pipelines.errors import SourceContractError, SourceError
from token_pipelines.source.tokens import UNKNOWN

AT_ONCE: Final = 10_000
"""Tokens read at a time where a read of all has failed."""

HOPELESS: Final = 100
"""When this many tokens have failed and none was read, the query itself is at fault: it fails on every row."""

FEW: Final = 10
"""So many people with unreadable rows only may be a whole batch; more, and the query is at fault itself."""

Ask = Callable[[Sequence[str], Collection[str]], list[pa.Table]]
"""Reads columns, given by their SQL, of some tokens."""


@dataclass
class Isolation:
    """``ask`` reads; ``columns`` are those of the whole row, ``keys`` those of its ids.

    ``tables`` are the rows that could be read. ``unreadable`` are the ids of the others, with the column at fault.
    """

    ask: Ask
    columns: Sequence[str]
    keys: Sequence[str]
    error: SourceError | SourceContractError
    """Why the read of all failed: raised again where the query itself is at fault."""
    tables: list[pa.Table] = field(default_factory=list)
    unreadable: list[tuple[pa.Table, str]] = field(default_factory=list)

    def read(self, token_ids: Sequence[str]) -> None:
        """Read these tokens.

        Raises:
            SourceError: the query fails on every row, or the database is in trouble.
        """
        for start in range(0, len(token_ids), AT_ONCE):
            self._read(token_ids[start : start + AT_ONCE])
        people = {person for keys, _ in self.unreadable for person in keys["recipient_id"].to_pylist()}
        if not self.tables and len(people) > FEW:
            raise self.error

    def _read(self, token_ids: Sequence[str]) -> None:
        tables = self._tried(self.columns, token_ids)
        if tables is not None:
            self.tables += [table for table in tables if table.num_rows]
        elif len(token_ids) > 1:
            middle = len(token_ids) // 2
            self._read(token_ids[:middle])
            self._read(token_ids[middle:])
        else:
            self._give_up(token_ids)

    def _give_up(self, token_ids: Sequence[str]) -> None:
        keys = self._tried(self.keys, token_ids)
        if keys:  # else the condition itself fails on this token: to the query it is gone
            self.unreadable.append((pa.concat_tables(keys), self._culprit(token_ids)))
        if not self.tables and len(self.unreadable) >= HOPELESS:
            raise self.error

    def _culprit(self, token_ids: Sequence[str]) -> str:
        """The column that the database cannot give; of those that failed before, the last one is tried first."""
        for column in sorted(self.columns, key=lambda each: _name(each) not in {name for _, name in self.unreadable}):
            if self._tried([*self.keys, column], token_ids) is None:
                return _name(column)
        return UNKNOWN

    def _tried(self, columns: Sequence[str], token_ids: Collection[str]) -> list[pa.Table] | None:
        try:
            return self.ask(columns, token_ids)
        except (SourceError, SourceContractError) as error:
            if not error.of_a_row:
                raise
            return None


def _name(column: str) -> str:
    """``left(token_name, 9) AS token_name``: the name at the end."""
    return column.rpartition(" ")[2]
