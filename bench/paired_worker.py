"""Measures the checkout that PYTHONPATH names first, for `paired`: one round for each line on stdin.

Only what `bench.delivery` has had for long is used of it, so that older checkouts can be measured.
"""

import json
import runpy
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import delivery
from bench.samples import Writer
from token_pipelines.demo.postgres import EmbeddedPostgres

WRITES = 1500
ACCOUNTING = runpy.run_path(str(Path(__file__).with_name("accounting.py")))  # this checkout's, not the measured one's
cpu_seconds, postmaster_of = ACCOUNTING["cpu_seconds"], ACCOUNTING["postmaster_of"]


def main() -> None:
    """Prepare, say so, and measure when told to."""
    port, delivery.CONNECTIONS, delivery.RECIPIENTS = map(int, sys.argv[1:])
    writer = Writer()
    with TemporaryDirectory() as name, EmbeddedPostgres(Path(name) / "postgres") as postgres:
        folder = Path(name)
        delivery.prepare(postgres, folder, port)
        postmaster = postmaster_of(postgres.url())
        say({})
        for _ in sys.stdin:
            parts = delivery.fresh_parts(postgres, folder, port)
            before = us_of_writing(writer)
            theirs, ours, began = cpu_seconds(postmaster), time.process_time(), time.perf_counter()
            delivery.send(parts)
            seconds, ours = time.perf_counter() - began, time.process_time() - ours
            theirs = cpu_seconds(postmaster) - theirs
            count = delivery.RECIPIENTS
            say(
                {
                    "per_second": count / seconds,
                    "cpu_us": ours / count * 1e6,
                    "postgres_cpu_us": theirs / count * 1e6,
                    "write_us": (before + us_of_writing(writer)) / 2,
                }
            )


def us_of_writing(writer: Writer) -> float:
    """Processor time of writing one email, with nothing else to do."""
    began = time.process_time()
    for number in range(WRITES):
        writer.write(number)
    return (time.process_time() - began) / WRITES * 1e6


def say(what: dict[str, float]) -> None:
    """Give an answer."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
