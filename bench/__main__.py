"""python -m bench [subject…]: measure, print a table, store the figures in bench/results/latest.json.

A subject is a module with ``figures()``, a dict of numbers by name, and ``TARGETS``, the limits for some of them.
Ratios compare times of the same round, because absolute times vary on shared machines. BENCH_SCALE makes the sizes
smaller for a quick look: then no target is checked and nothing is stored.
"""

import importlib
import json
import operator
import os
import platform
import sys
import time
from datetime import UTC, datetime

from bench.database import SCALE
from bench.servers import MissingProgram, repository

SUBJECTS = ("mail", "delivery", "snapshot", "growth", "plan")
RESULTS = repository() / "bench" / "results" / "latest.json"
COMPARE = {">=": operator.ge, "<=": operator.le}


def main(chosen: list[str]) -> int:
    """Run the chosen subjects, or all. Returns 1 if a target is missed, 2 if a program is not installed."""
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))["figures"] if RESULTS.exists() and chosen else {}
    missed = 0
    for subject in chosen or SUBJECTS:
        module = importlib.import_module(f"bench.{subject}")
        began = time.perf_counter()
        try:
            figures = module.figures()
        except MissingProgram as missing:
            sys.stderr.write(f"{missing}\n")
            return 2
        for name, value in figures.items():
            sign, target = module.TARGETS.get(name, ("", None)) if SCALE == 1 else ("", None)
            reached = target is None or COMPARE[sign](value, target)
            missed += not reached
            wanted = "" if target is None else f"{sign} {target:g} {'reached' if reached else 'MISSED'}"
            print(f"{name:<46}{value:>12,.2f}  {wanted}".rstrip())
        print(f"{subject}: {time.perf_counter() - began:.0f} s\n")
        kept |= {name: round(value, 3) for name, value in figures.items()}
    if SCALE != 1:
        return 0
    RESULTS.parent.mkdir(exist_ok=True)
    machine = {
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "compiler": platform.python_compiler(),
        "system": platform.platform(),
        "load": round(os.getloadavg()[0], 1),
    }
    found = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine, "figures": kept}
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
