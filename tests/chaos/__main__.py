"""`make chaos`: kills, crashes and a moody relay, then the count of what was lost and what came twice."""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from chaos.run import Result, Settings, unleash
from chaos.sabotage import SABOTAGES

DEFAULTS = Settings()


def main() -> int:
    """Run it; the exit status is 1 when the promise was broken."""
    arguments = _parse()
    settings = Settings(
        recipients=arguments.recipients,
        kills=arguments.kills,
        postgres_restarts=arguments.postgres_restarts,
        freezes=arguments.freezes,
        seed=arguments.seed if arguments.seed is not None else time.time_ns() % 100_000,
        rate=arguments.rate,
        sabotage=arguments.sabotage,
    )
    _say(f"chaos with --seed {settings.seed}")
    result = unleash(settings, say=_say if arguments.verbose else lambda _: None)
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / f"{settings.seed}.json"
    path.write_text(json.dumps(result.as_json(), indent=2) + "\n")
    _say("\n".join(table(result)))
    _say(f"\nwritten to {path}")
    if result.verdict.failures:
        _say(f"the workers' logs are in {result.folder}")
        return 1
    shutil.rmtree(result.folder)
    return 0


def table(result: Result) -> list[str]:
    """The result as lines for people."""
    verdict = result.verdict
    own = ("full for good", "second copy refused", "greylisted")
    trouble = sum(count for name, count in result.tally.items() if not name.endswith(own))
    causes = ", ".join(f"{cause} {count}" for cause, count in sorted(verdict.by_cause.items())) or "none"
    blows = ", ".join(f"{kind} {count}" for kind, count in sorted(result.kills.items()))
    rows = [
        ("recipients due", verdict.due),
        ("refused for good by their mailbox", verdict.refused),
        ("told, as the relay counts", verdict.told),
        ("messages accepted", verdict.accepted),
        ("lost", verdict.lost),
        ("duplicates, same Message-ID", verdict.duplicates),
        ("  by cause", causes),
        ("  the bound", f"{verdict.bound} = " + " + ".join(f"{n} ({name})" for name, n in verdict.bound_of.items())),
        ("left in doubt", verdict.left_in_doubt),
        ("the ledger's states", _counts(verdict.states)),
        ("the ledger's attempts", _counts(verdict.attempts)),
        ("blows", blows),
        ("runs of the worker", result.runs),
        ("troubles made by the relay", trouble),
        ("seconds", f"{result.seconds:.0f}"),
    ]
    lines = [f"{name:34} {value}" for name, value in rows]
    lines += [f"{message_id}\n    " + "\n    ".join(story) for message_id, story in verdict.stories.items()]
    return [*lines, "", *([f"BROKEN  {failure}" for failure in verdict.failures] or ["The promise held."])]


def _counts(counter: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--recipients", type=int, default=DEFAULTS.recipients)
    parser.add_argument("--kills", type=int, default=DEFAULTS.kills)
    parser.add_argument("--postgres-restarts", type=int, default=DEFAULTS.postgres_restarts)
    parser.add_argument("--freezes", type=int, default=DEFAULTS.freezes, help="live workers presumed dead")
    parser.add_argument("--rate", type=int, default=DEFAULTS.rate, help="messages a second")
    parser.add_argument("--seed", type=int, help="of everything random; another one each time without it")
    parser.add_argument("--sabotage", choices=sorted(SABOTAGES), help="break the product: the verdict must fail")
    parser.add_argument("--out", type=Path, default=Path(".token_pipelines/chaos"), help="where the JSON goes")
    parser.add_argument("--verbose", action="store_true", help="say each blow")
    return parser.parse_args()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
