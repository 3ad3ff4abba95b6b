"""Processor time of another program and its children, by Linux' own accounting."""

import os
from pathlib import Path

import psycopg

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


def postmaster_of(url: str) -> int:
    """The process id of the Postgres server at ``url``: the parent of each of its backends."""
    with psycopg.connect(url) as connection:
        return int(_stat(connection.info.backend_pid)[1])


def cpu_seconds(parent: int) -> float:
    """Seconds of this process, of its children that run, and of those that have ended."""
    own = _stat(parent)
    reaped = (int(own[13]) + int(own[14])) / TICKS
    return reaped + sum(_scheduled(process) for process in (parent, *_children(parent)))


def _children(parent: int) -> list[int]:
    found = (PROC / str(parent) / "task" / str(parent) / "children").read_text(encoding="ascii")
    return [int(child) for child in found.split()]


def _scheduled(process: int) -> float:
    """Seconds on a processor; 0 of a process that has just ended: its parent counts it."""
    try:
        return int((PROC / str(process) / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def _stat(process: int) -> list[str]:
    """The fields behind the name, which may hold blanks: state, parent and so on."""
    return (PROC / str(process) / "stat").read_text(encoding="ascii").rpartition(")")[2].split()
