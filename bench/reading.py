"""A day's snapshot, as the asset takes it: read, validated, classified, written to parquet, flushed to disk.

python -m bench.reading CONFIG FILE prints time and memory as JSON. It runs in its own process, because peak memory
belongs to a process.
"""

import json
import sys
import time
from pathlib import Path
from typing import Final

import token_pipelines.definitions  # noqa: F401 -- a run has imported this before it reads
from bench.database import NOW, parts_of
from token_pipelines.day import read_tokens
from token_pipelines.defs.storage import FrameStream, write_atomically
from token_pipelines.planning import SnapshotCounts, no_tokens

STATUS: Final = Path("/proc/self/status")
KB_PER_MB: Final = 1024


def read_day(config: Path, file: Path) -> tuple[float, SnapshotCounts]:
    """Write the day's snapshot to a file; returns the seconds it took and the snapshot's counts."""
    parts = parts_of(config)
    parts.ledger.migrate()
    examination = SnapshotCounts()
    began = time.perf_counter()
    frames = read_tokens(parts, day=NOW.date(), counts=examination)
    write_atomically(file, FrameStream(frames, no_tokens(parts)))
    seconds = time.perf_counter() - began
    parts.ledger.close()
    return seconds, examination


def _memory_mb(name: str) -> float:
    """This process' memory: VmRSS is the present size, VmHWM the peak. ru_maxrss would include the parent's."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text(encoding="ascii").splitlines())
    return int(lines[name].split()[0]) / KB_PER_MB


if __name__ == "__main__":
    before = _memory_mb("VmRSS")
    took, seen = read_day(Path(sys.argv[1]), Path(sys.argv[2]))
    found = {"seconds": took, "examined": seen.examined, "due": seen.due, "imports_mb": before}
    print(json.dumps(found | {"peak_mb_over_imports": _memory_mb("VmHWM") - before}))
