"""Reads the operator's tokens: a snapshot of those that expire soon, and later a few of them again by id.

Start here. A snapshot goes through these steps, one module each:

1. `query` loads the operator's SELECT and checks it; `sql_text` tells its code from its comments and strings.
2. `databases` knows the kind of database, and opens its `reader`.
3. `contract` checks the query's columns and their types, before any row is read.
4. `bounds` turns the window of expiries into the query's two binds.
5. The reader runs one statement and gives its rows as Arrow tables. `deadline` interrupts it when the time is over.
6. `tokens` checks each batch and makes tokens of it: ids, flags, `instants` in UTC. `row_errors` names a bad row that
   breaks the contract. `readable` and `isolation` set apart the rows that nobody can read, so that all others are read.
7. `spool` keeps the tokens in a temporary file until the read is over, and refuses duplicates.

A read that breaks on a replica's conflict or a lost connection begins again on a new connection. Nothing is
handed on before a read is complete. `on_sent` is the way back: it records in that database what was sent.
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from datetime import timedelta
from functools import cached_property
from typing import Final, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from token_pipelines.config import SOURCE_URL
from token_pipelines.config import Source as SourceConfig
from token_pipelines.database import DatabaseUrl
from token_pipelines.errors import SourceContractError, SourceError
from token_pipelines.policy import Window
from token_pipelines.source import instants, query, tokens
from token_pipelines.source.bounds import ANY_EXPIRY, Bounds
from token_pipelines.source.contract import Contract
from token_pipelines.source.databases.known import database_of
from token_pipelines.source.deadline import Deadline
from token_pipelines.source.dialect import Dialect
from token_pipelines.source.expiry_probe import probe_expiries
from token_pipelines.source.isolation import Isolation
from token_pipelines.source.readable import has_readable_ids, readable
from token_pipelines.source.reader import Reader
from token_pipelines.source.spool import Spool

PAUSES_S: Final = (1.0, 5.0, 20.0)
"""Pauses before a broken read begins again; after the last one it is given up. A replica needs seconds to catch up."""

LONGEST_LAG: Final = timedelta(days=36_525)
"""A longer lag means that the replica cannot say how far it is behind."""

Read = TypeVar("Read")
RowError = SourceError | SourceContractError


class Source:
    """Reads tokens through the operator's query. Opens a connection for each read."""

    def __init__(
        self,
        config: SourceConfig,
        *,
        reader: Reader | None = None,
        pauses: Sequence[float] = PAUSES_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Take the query of ``config``.

        Raises:
            ConfigError: if the URL, its driver, the query or the zone is wrong.
        """
        if config.timezone is not None:
            instants.check_zone(config.timezone)
        self.reader = reader or open_reader(config)
        self._config = config
        self._query = query.load(config.query, self.reader.dialect)
        self._pauses = pauses
        self._sleep = sleep

    def snapshot(self, window: Window) -> Iterator[pd.DataFrame]:
        """Every token whose expiry lies in the window, in frames of TOKEN_COLUMNS, no address among them.

        The first frame comes when the whole read is over and every row is in order.

        Raises:
            SourceContractError: if the query's columns are not what the contract asks for.
            SourceError: if the database cannot be read, or a row breaks the contract.
        """
        deadline = Deadline(self._config.deadline)
        with Spool() as spool:
            self._with_retries(lambda: self._read_window(spool, window, deadline), deadline)
            for table in spool.tables():
                yield tokens.to_frame(table)

    def resolve(self, token_ids: Collection[str]) -> pd.DataFrame:
        """These tokens as they are now: TOKEN_COLUMNS and contract.DETAIL_COLUMNS. What is gone is missing."""
        if not token_ids:
            return tokens.no_facts()
        deadline = Deadline(self._config.deadline)
        facts = self._with_retries(lambda: self._read_by_id(token_ids, deadline), deadline)
        # Compared once more as text: MariaDB also returns ABC for abc.
        return facts[facts["token_id"].isin(list(token_ids))]

    @cached_property
    def contract(self) -> Contract:
        """The query's columns, checked once."""
        unknown = Bounds.of(ANY_EXPIRY, self.dialect, pa.null(), self._config.timezone)
        schema = self.reader.schema(query.wrap_nothing(self._query, ["*"], unknown.values))
        return Contract.check(schema, self._config.timezone, self.dialect)

    @property
    def dialect(self) -> Dialect:
        """How the database writes what we ask."""
        return self.reader.dialect

    def literals(self, token_ids: Collection[str]) -> list[str | int]:
        """Canonical ids as the database compares them with its own, in their type."""
        return self.dialect.literals(token_ids, self.contract.schema.field("token_id").type)

    def filter_reaches_tables(self, token_ids: Collection[str]) -> bool | None:
        """Whether reading a few tokens by id reads only these, or first everything; None where it cannot be known."""
        reached = self.reader.reaches_tables(self._by_id(token_ids), token_ids)
        return True if query.has_marker(self._query) else reached

    def probe_expiries(self) -> None:
        """Look for a row that the query can never return, because its expires_at is compared as another type.

        Raises:
            SourceContractError: if its expires_at is of the wrong type.
            SourceError: if its expires_at is no instant, or the query does not find the row by it.
        """
        probe_expiries(self.reader, self._query, self.contract, Deadline(self._config.deadline))

    def _bounds(self, window: Window) -> Bounds:
        kind = self.contract.schema.field("expires_at").type
        return Bounds.of(window, self.dialect, kind, self._config.timezone)

    def _read_window(self, spool: Spool, window: Window, deadline: Deadline) -> None:
        spool.clear()
        self._refuse_lag()
        if self.dialect.probe_each_run:
            probe_expiries(self.reader, self._query, self.contract, deadline)
        bounds, columns = self._bounds(window), self.contract.snapshot_columns
        statement = query.wrap(self._query, columns, bounds.values)
        try:
            # Closed at once when a row is bad: else the error's traceback would keep the connection open.
            with closing(self.reader.read(statement, deadline)) as batches:
                for rows in batches:
                    spool.add(tokens.check(rows, self.contract, bounds))
        except (SourceError, SourceContractError) as error:
            if not error.of_a_row:
                raise
            spool.clear()
            self._read_window_by_id(spool, bounds, error, deadline)
        spool.finish()

    def _read_window_by_id(self, spool: Spool, bounds: Bounds, error: RowError, deadline: Deadline) -> None:
        """The same where the database fails on a row's value: which row it is shows only by reading rows by id."""
        keys = query.wrap(self._query, self.contract.key_columns, bounds.values)
        rows = pa.concat_tables([readable(each) for each in self._tables(keys, deadline)])
        known = has_readable_ids(rows)
        spool.add(tokens.stand_ins(rows.filter(pc.invert(known)), self.contract))
        token_ids = rows.filter(known)["token_id"].cast(pa.string()).unique().to_pylist()
        isolation = self._isolation(self.contract.snapshot_columns, bounds, error, deadline)
        isolation.read(token_ids)
        for table in isolation.tables:
            spool.add(tokens.check(table, self.contract, bounds))
        for row, culprit in isolation.unreadable:
            spool.add(tokens.unreadable(row, culprit, self.contract))

    def _tables(self, statement: query.Statement, deadline: Deadline) -> list[pa.Table]:
        with closing(self.reader.read(statement, deadline)) as batches:
            return list(batches)

    def _isolation(self, columns: Sequence[str], bounds: Bounds, error: RowError, deadline: Deadline) -> Isolation:
        def ask(columns: Sequence[str], token_ids: Collection[str]) -> list[pa.Table]:
            return self._tables(query.wrap(self._query, columns, bounds.values, self.literals(token_ids)), deadline)

        return Isolation(ask=ask, columns=columns, keys=self.contract.key_columns, error=error)

    def _by_id(self, token_ids: Collection[str]) -> query.Statement:
        bounds = self._bounds(ANY_EXPIRY)
        return query.wrap(self._query, self.contract.resolve_columns, bounds.values, self.literals(token_ids))

    def _read_by_id(self, token_ids: Collection[str], deadline: Deadline) -> pd.DataFrame:
        self._refuse_lag()
        bounds = self._bounds(ANY_EXPIRY)
        try:
            tables, odd = self._tables(self._by_id(token_ids), deadline), []
        except (SourceError, SourceContractError) as error:
            if not error.of_a_row:
                raise
            isolation = self._isolation(self.contract.resolve_columns, bounds, error, deadline)
            isolation.read(list(token_ids))
            tables, odd = isolation.tables, isolation.unreadable
        found = [tokens.facts(rows, self.contract, bounds) for rows in tables]
        found += [tokens.without_facts(tokens.unreadable(keys, culprit, self.contract)) for keys, culprit in odd]
        return pd.concat(found, ignore_index=True) if found else tokens.no_facts()

    def _refuse_lag(self) -> None:
        limit = self._config.max_lag
        lag = None if limit is None else self.reader.lag()
        if limit is not None and lag is not None and lag > limit:
            behind = (
                "does not say how far it is behind" if lag > LONGEST_LAG else f"is {lag.total_seconds():.0f}s behind"
            )
            msg = (
                f"Replica lag over the limit: the database of {SOURCE_URL} {behind}, and source.max_lag is "
                f"{limit.total_seconds():.0f}s; wait until it has caught up, read the primary, or raise the limit."
            )
            raise SourceError(msg)

    def _with_retries(self, read: Callable[[], Read], deadline: Deadline) -> Read:
        """Read, and begin again after a pause where a new connection may end the trouble.

        A database that is restarting breaks a read first, and is then unreachable for a while.
        """
        broken = False
        for pause in self._pauses:
            try:
                return read()
            except SourceError as error:
                broken = broken or error.may_pass
                again = error.may_pass or (broken and error.unreachable)
                if not again or pause >= deadline.left:
                    raise
            self._sleep(pause)
        return read()


def open_reader(config: SourceConfig) -> Reader:
    """The reader for the database of ``config``. Opens nothing yet.

    Raises:
        ConfigError: if the URL is none, or its driver is not installed.
    """
    url = DatabaseUrl.read(config.url.get_secret_value(), SOURCE_URL)
    return database_of(url.backend).open_reader(url, config)
