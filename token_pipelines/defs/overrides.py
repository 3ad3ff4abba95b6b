"""The parts that a caller of `build_defs` may replace: the clock, a progress callback, the files' folder, the pool."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from token_pipelines.clock import Clock, system_clock

POOL: Final = "smtp"


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """The replaceable parts. The defaults are those of production."""

    clock: Clock = system_clock
    on_progress: Callable[[str, int], None] = lambda _tier, _done: None
    storage: Path | None = None
    pool: str | None = POOL
    """The pool whose slots the sending ops take. A killed process keeps its slot until the daemon frees it, so a run
    without a daemon must use no pool."""
