"""What the demo started ends with it."""

import subprocess
import sys
import time
from pathlib import Path

from token_pipelines.demo import serving

LEADER_WITH_A_DEAF_CHILD = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child inherits it
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
signal.signal(signal.SIGINT, lambda *_: sys.exit())
print(child.pid, flush=True)
time.sleep(60)
"""
PATIENCE_S = 10


def test_end_leaves_no_child_that_ignores_sigint() -> None:
    command = [sys.executable, "-c", LEADER_WITH_A_DEAF_CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        child = Path("/proc", process.stdout.readline().decode().strip())
        assert child.exists()
        serving._end(process)  # noqa: SLF001 -- through the public function it needs Dagster's whole UI
    deadline = time.monotonic() + PATIENCE_S
    while child.exists() and "(zombie)" not in (child / "status").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.exists() or "(zombie)" in (child / "status").read_text()
