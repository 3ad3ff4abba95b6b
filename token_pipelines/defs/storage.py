"""Stores an asset's frames as parquet files, one per partition: ids, times and flags. No addresses, no pickles."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from token_pipelines.defs.failures import failing_clearly
from token_pipelines.errors import TokenPipelinesError


@dataclass(frozen=True)
class FrameStream:
    """Frames to write one after the other, and the metadata to attach when they are written.

    ``empty`` is a frame without rows that has their columns and dtypes.
    """

    frames: Iterable[pd.DataFrame]
    empty: pd.DataFrame
    describe: Callable[[], dict[str, Any]] = field(default=dict)


class ParquetIOManager(dg.IOManager):
    """Writes each partition's file atomically: a temporary file, flushed, then renamed into place."""

    def __init__(self, folder: Path) -> None:
        """Keep files below ``folder``."""
        self._folder = folder

    def path(self, context: dg.OutputContext | dg.InputContext) -> Path:
        """Where an asset's partition is kept."""
        return self._folder.joinpath(*context.asset_key.path, context.asset_partition_key).with_suffix(".parquet")

    def handle_output(self, context: dg.OutputContext, obj: FrameStream) -> None:
        """Write the frames, one row group each, and attach their metadata."""
        path = self.path(context)
        with failing_clearly():
            rows = write_atomically(path, obj)
        context.add_output_metadata(obj.describe() | {"rows": rows, "bytes": path.stat().st_size})

    def load_input(self, context: dg.InputContext) -> pd.DataFrame | None:
        """The frame as it was written. None if the file was deleted (retention): the tokens are then read again."""
        path = self.path(context)
        with failing_clearly():
            return read(path) if path.exists() else None


def read(path: Path) -> pd.DataFrame:
    """A parquet file as a frame."""
    frame: pd.DataFrame = pq.read_table(path).to_pandas()
    return frame


def write_atomically(path: Path, stream: FrameStream) -> int:
    """Write the frames to ``path``, whole or not at all. Returns the number of rows.

    Raises:
        TokenPipelinesError: if the disk is full or the folder cannot be written.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            rows = _write(file, stream)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        msg = f"{path} cannot be written ({reason}); free the disk or fix its permissions."
        raise TokenPipelinesError(msg) from None
    finally:
        if temporary is not None:
            with suppress(FileNotFoundError):
                temporary.unlink()
    return rows


def _write(file: Any, stream: FrameStream) -> int:  # noqa: ANN401 -- a binary file
    rows = 0
    schema = pa.Schema.from_pandas(stream.empty, preserve_index=False)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for frame in _filled(stream):
            writer.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))
            rows += len(frame)
    return rows


def _filled(stream: FrameStream) -> Iterator[pd.DataFrame]:
    return (frame for frame in stream.frames if len(frame))
