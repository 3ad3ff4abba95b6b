"""Compare this checkout with another one: a tier's run of each in turn, in the same minutes.

    python bench/paired.py OTHER_CHECKOUT [--connections N…] [--messages N] [--rounds N] [--port P]

Shows medians, and the medians of the ratios within a round: absolute figures swing on shared machines, these do not.
"""

import argparse
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parents[1]
FIGURES = {"per_second": "messages a second", "cpu_us": "CPU µs here", "postgres_cpu_us": "CPU µs of Postgres",
           "write_us": "CPU µs of one write"}  # fmt: skip


class Checkout:
    """A process that measures one checkout, round by round."""

    def __init__(self, folder: Path, port: int, connections: int, messages: int) -> None:
        """Start it, and wait until its databases are filled."""
        arguments = [str(HERE / "bench" / "paired_worker.py"), str(port), str(connections), str(messages)]
        environment = os.environ | {"PYTHONPATH": str(folder)}
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if process.stdin is None or process.stdout is None:
            raise ValueError
        self._process, self._to, self._from = process, process.stdin, process.stdout
        self._read()

    def round(self) -> dict[str, float]:
        """Send everything once."""
        self._to.write("go\n")
        self._to.flush()
        return self._read()

    def _read(self) -> dict[str, float]:
        line = self._from.readline()
        if not line:
            msg = "a measuring process has ended; its error is above"
            raise SystemExit(msg)
        found: dict[str, float] = json.loads(line)
        return found

    def end(self) -> None:
        """End it, and its Postgres."""
        self._to.close()
        self._process.wait(60)


def main() -> None:
    """Measure, and print a table for each number of connections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("--connections", type=int, nargs="+", default=[16])
    parser.add_argument("--messages", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--port", type=int, help="a relay that listens already, for instance one that is slow")
    options = parser.parse_args()
    with ExitStack() as stack:
        port = options.port
        if port is None:
            sys.path.insert(0, str(HERE))
            from bench.servers import sink  # noqa: PLC0415 -- needs Postfix, which a port given spares

            port = stack.enter_context(sink())
        for connections in options.connections:
            compare(options.other.resolve(), port, connections, options.messages, options.rounds)


def compare(other: Path, port: int, connections: int, messages: int, rounds: int) -> None:
    """Measure with this number of connections."""
    with ExitStack() as stack:
        checkouts = {}
        for name, folder in (("theirs", other), ("ours", HERE)):
            checkouts[name] = Checkout(folder, port, connections, messages)
            stack.callback(checkouts[name].end)
        found: list[dict[str, dict[str, float]]] = []
        for number in range(rounds):
            order = list(checkouts)[:: 1 if number % 2 else -1]
            found.append({name: checkouts[name].round() for name in order})
    load = f"load {os.getloadavg()[0]:.1f}"
    print(f"\n{connections} connections, {messages} messages, {rounds} rounds, {load}")
    print(f"{'':24}{'theirs':>10}{'ours':>10}{'ratio':>8}  ratios")
    for figure, title in FIGURES.items():
        ratios = [one["ours"][figure] / one["theirs"][figure] for one in found]
        theirs, ours = (median(one[name][figure] for one in found) for name in ("theirs", "ours"))
        listed = " ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{title:24}{theirs:>10.0f}{ours:>10.0f}{median(ratios):>8.2f}  {listed}")
    print(
        f"{'CPU here / one write':24}"
        + "".join(
            f"{median(one[name]['cpu_us'] / one[name]['write_us'] for one in found):>10.2f}"
            for name in ("theirs", "ours")
        )
    )


if __name__ == "__main__":
    main()
