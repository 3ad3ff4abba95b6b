"""One run of today without Dagster, in a process of its own: every tier.

    python one_day.py CONFIG RUN_ID GO

Says "ready" when everything is loaded, waits for the file GO, and prints how many notices it sent.
"""

import sys
import time
from pathlib import Path

from token_pipelines.config import load
from token_pipelines.day import run_day
from token_pipelines.pipeline import Pipeline


def main() -> None:
    config, run_id, go = sys.argv[1:]
    parts = Pipeline(load(Path(config)))
    parts.ledger.migrate()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not Path(go).exists():
        time.sleep(0.001)
    result = run_day(parts, run_id=run_id)
    for trouble in result.troubles:
        raise trouble
    sys.stdout.write(f"{sum(report.sent for report in result.tiers.values())}\n")


main()
