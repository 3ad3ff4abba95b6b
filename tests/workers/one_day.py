"""One run of today without Dagster, in a process of its own: every tier, as the Dagster ops do it.

    python one_day.py CONFIG RUN_ID GO

Says "ready" when everything is loaded, waits for the file GO, and prints how many notices it sent.
"""

import sys
import time
from pathlib import Path

import pandas as pd

from token_pipelines.config import load
from token_pipelines.delivery.counts import TierReport
from token_pipelines.delivery.tier import send_tier
from token_pipelines.pipeline import Pipeline
from token_pipelines.planning import SnapshotCounts, examine, no_tokens, plan


def main() -> None:
    config, run_id, go = sys.argv[1:]
    parts = Pipeline(load(Path(config)))
    parts.ledger.migrate()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not Path(go).exists():
        time.sleep(0.001)
    day = parts.config.schedule.today(parts.clock())
    tiers = [tier.name for tier in parts.policy.tiers]
    frames = list(examine(parts, day=day, counts=SnapshotCounts()))
    snapshot = pd.concat(frames, ignore_index=True) if frames else no_tokens(parts)
    plan(parts, snapshot, day=day, tiers=tiers, run_id=run_id)
    sent = 0
    for tier in tiers:
        report = TierReport()
        send_tier(parts, tier, run_id=run_id, report=report, has_ended=lambda _: False)
        sent += report.sent
    sys.stdout.write(f"{sent}\n")


main()
