"""The operator's token database: a snapshot of what expires, and a few tokens read again by id.

One statement a read, read-only, in UTC, with timeouts. Postgres, through ADBC.
"""

import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import adbc_driver_manager
import numpy as np
import pandas as pd
import pyarrow as pa
from adbc_driver_postgresql import dbapi

from token_pipelines.config import Source as SourceConfig
from token_pipelines.database import POSTGRES, explain, parse_postgres
from token_pipelines.errors import SourceContractError, SourceError
from token_pipelines.policy import Window
from token_pipelines.source import query
from token_pipelines.source.contract import Contract

KEY: Final = "source.url"
APPLICATION_NAME: Final = "token-pipelines source"
CONNECT_TIMEOUT_S: Final = 10

ANY_EXPIRY: Final = Window(
    expires_after=datetime(1970, 1, 1, tzinfo=UTC), expires_before=datetime(9000, 1, 1, tzinfo=UTC)
)
"""The window of resolving: wide, so that a renewed token comes back with its new expiry and is named renewed."""

_POSTGRES_SAYS: Final = re.compile(r"ERROR:\s*(.+)")
_SYNTAX_CLASS: Final = "42"
"""SQLSTATEs that begin so blame the statement, and name identifiers only."""


class Source:
    """Reads tokens through the operator's query. Opens a connection for each read."""

    def __init__(self, config: SourceConfig, folder: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Take the query of ``config``; paths in it are relative to ``folder``."""
        self.url = parse_postgres(config.url.get_secret_value(), KEY, POSTGRES)
        self._config = config
        self._query = query.load(config.query, folder)
        self._monotonic = monotonic

    def snapshot(self, window: Window) -> Iterator[pd.DataFrame]:
        """Every token whose expiry lies in the window, in frames of policy.TOKEN_COLUMNS, no address among them.

        Raises:
            SourceContractError: if the query's columns are not what the contract asks for.
            SourceError: if the database cannot be read, or a row breaks the contract.
        """
        seen = []
        statement = query.wrap(query.bind(self._query, window), self.contract.snapshot_columns)
        deadline = self._monotonic() + self._config.deadline.total_seconds()
        for batch in self._read(statement):
            tokens = self.contract.tokens(batch)
            seen.append(pd.util.hash_pandas_object(tokens[["token_id", "recipient_id"]], index=False).to_numpy())
            yield tokens
            if self._monotonic() > deadline:
                msg = "Reading the source took longer than source.deadline; raise it, or narrow the query."
                raise SourceError(msg)
        hashes = np.concatenate(seen) if seen else np.empty(0)
        if len(np.unique(hashes)) < len(hashes):
            self._name_a_duplicate(window)

    def resolve(self, token_ids: Collection[str]) -> pd.DataFrame:
        """These tokens as they are now: policy.TOKEN_COLUMNS and contract.FACT_COLUMNS. What is gone is missing."""
        statement = query.wrap(query.bind(self._query, ANY_EXPIRY), self.contract.resolve_columns, token_ids)
        batches = list(self._read(statement))
        facts = [self.contract.facts(batch) for batch in batches] or [self.contract.facts(self._no_rows())]
        resolved = pd.concat(facts, ignore_index=True)
        return resolved[resolved["token_id"].isin(list(token_ids))]

    @cached_property
    def contract(self) -> Contract:
        """The query's columns, checked once."""
        return Contract.check(self._schema(["*"]), self._config.timezone)

    def _no_rows(self) -> pa.Table:
        return self._schema(self.contract.resolve_columns).empty_table()

    def _schema(self, columns: Sequence[str]) -> pa.Schema:
        with self._cursor() as cursor:
            cursor.execute(f"{query.wrap(query.bind(self._query, ANY_EXPIRY), columns)} LIMIT 0")
            return cursor.fetch_record_batch().schema

    def _read(self, statement: str) -> Iterator[pa.Table]:
        with self._cursor() as cursor:
            cursor.execute(statement)
            for batch in cursor.fetch_record_batch():
                if batch.num_rows:
                    yield pa.Table.from_batches([batch])

    def _name_a_duplicate(self, window: Window) -> None:
        wrapped = query.wrap(query.bind(self._query, window), ["min(CAST(token_id AS text)) AS token_id"])
        again = f"{wrapped} GROUP BY token_id, recipient_id HAVING count(*) > 1 LIMIT 1"
        sample = next((batch["token_id"][0].as_py() for batch in self._read(again)), "unknown")
        msg = (
            f"The source query returns a token and recipient more than once (token_id {sample}); "
            "a join multiplies its rows: aggregate, or join on a unique column."
        )
        raise SourceError(msg)

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        try:
            with closing(dbapi.connect(self._uri())) as connection, closing(connection.cursor()) as cursor:
                yield cursor
        except (adbc_driver_manager.Error, OSError) as error:
            raise self._explained(error) from None

    def _uri(self) -> str:
        limits = {
            "TimeZone": "UTC",
            "default_transaction_read_only": "on",
            "statement_timeout": int(self._config.statement_timeout.total_seconds() * 1000),
            "lock_timeout": int(self._config.lock_timeout.total_seconds() * 1000),
        }
        options = " ".join(f"-c {name}={value}" for name, value in limits.items())
        url = self.url.update_query_dict(
            {
                "application_name": APPLICATION_NAME,
                "connect_timeout": str(CONNECT_TIMEOUT_S),
                "options": f"{self.url.query.get('options', '')} {options}".strip(),
            }
        )
        # libpq reads a + in a query string as a plus sign.
        return url.render_as_string(hide_password=False).replace("+", "%20")

    def _explained(self, error: Exception) -> SourceError | SourceContractError:
        sqlstate = getattr(error, "sqlstate", None) or ""
        said = _POSTGRES_SAYS.search(str(error))
        if sqlstate.startswith(_SYNTAX_CLASS) and said and "permission denied" not in said[1]:
            msg = f"The source query is not accepted by the database: {said[1].strip()}; mend source.query."
            return SourceContractError(msg)
        return SourceError(explain(error, self.url, KEY))
