"""Keeps the tokens of a read in a temporary file until the read is over.

So the database's connection is closed early, and a broken read leaves nothing behind. The file has no name and holds
Arrow's format: ids, times and flags, never an address.
"""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Any, Final, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from token_pipelines.errors import SourceError
from token_pipelines.source import row_errors
from token_pipelines.source.readable import UNREADABLE
from token_pipelines.source.tokens import TOKENS

KEY: Final = ["token_id", "recipient_id"]

GOLDEN: Final = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: spreads consecutive numbers over all 64 bits."""

LONGEST_NUMBER: Final = 18
"""A decimal number of at most this many digits fits into 64 bits."""

FRAME_ROWS: Final = 100_000
"""Rows of a frame: some 20 MB with what the policy adds."""


def open_file() -> IO[bytes]:
    """A file without a name, which ends with the process."""
    return tempfile.TemporaryFile()


class Spool:
    """Tokens written once and read once."""

    def __init__(self) -> None:
        """An empty spool."""
        self._file = open_file()
        self.clear()

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delete the file."""
        self._file.close()

    def clear(self) -> None:
        """Drop what a broken read has left."""
        self._file.seek(0)
        self._file.truncate()
        self._hashes: list[np.ndarray] = []
        self._writer: Any = None

    def add(self, tokens: pa.Table) -> None:
        """Add a batch of columns TOKENS."""
        self._hashes.append(_hashes(_readable(tokens)))
        with _room():
            if self._writer is None:
                self._writer = pa.ipc.new_stream(pa.PythonFile(self._file, mode="w"), TOKENS)
            self._writer.write_table(tokens, max_chunksize=FRAME_ROWS)

    def finish(self) -> None:
        """End the writing, and check the whole read.

        Raises:
            SourceError: if a token and recipient came more than once.
        """
        with _room():
            if self._writer is not None:
                self._writer.close()
            self._file.flush()
        self._refuse_duplicates()

    def tables(self) -> Iterator[pa.Table]:
        """All tokens, in tables of some FRAME_ROWS."""
        if self._writer is None:
            return
        self._file.seek(0)
        waiting: list[pa.RecordBatch] = []
        for batch in pa.ipc.open_stream(pa.PythonFile(self._file, mode="r")):
            if waiting and sum(each.num_rows for each in waiting) + batch.num_rows > FRAME_ROWS:
                yield pa.Table.from_batches(waiting)
                waiting = []
            waiting.append(batch)
        if waiting:
            yield pa.Table.from_batches(waiting)

    def _refuse_duplicates(self) -> None:
        """Compare 64-bit hashes; where two are equal, compare the ids themselves."""
        hashes = np.sort(np.concatenate(self._hashes)) if self._hashes else np.empty(0, np.uint64)
        twice = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        if not len(twice):
            return
        suspects = []
        for tokens in map(_readable, self.tables()):
            found = np.isin(_hashes(tokens), twice)
            suspects.append(tokens.select(KEY).filter(pa.array(found)))
        rows = pa.concat_tables(suspects)
        again = pa.chunked_array([rows.to_pandas().duplicated(keep=False)])
        fault = "The source query returns a token and recipient more than once {row}"
        row_errors.refuse(rows, again, fault, "a join multiplies its rows: aggregate, or join on a unique column")


def _readable(tokens: pa.Table) -> pa.Table:
    """Without rows that cannot be read: their ids may be shown in the same way."""
    fine = pc.equal(tokens[UNREADABLE], "")
    return tokens if pc.all(fine).as_py() else tokens.filter(fine)


def _hashes(tokens: pa.Table) -> np.ndarray:
    """A hash of each row's token and recipient."""
    token, recipient = (_numbers(tokens[name]) for name in KEY)
    return (token * np.uint64(GOLDEN)) ^ ((recipient << np.uint64(32)) | (recipient >> np.uint64(32)))


def _numbers(ids: pa.ChunkedArray) -> np.ndarray:
    """A number for each id. Most ids are numbers: not hashing those saves a fifth of a read."""
    short = pc.and_(pc.ascii_is_decimal(ids), pc.less_equal(pc.binary_length(ids), LONGEST_NUMBER))
    numbers: np.ndarray = pc.if_else(short, ids, "0").cast(pa.int64()).to_numpy().astype(np.uint64)
    if not pc.all(short).as_py():
        texts = ~short.to_numpy()
        words = ids.filter(pc.invert(short)).to_numpy().astype(object)
        numbers[texts] = pd.util.hash_array(words, categorize=False)
    return numbers


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        msg = (
            f"The temporary folder {tempfile.gettempdir()} is full, where a snapshot is kept while it is read; "
            "free its disk, or set TMPDIR to a folder with more room."
        )
        raise SourceError(msg) from None
