"""What a run of the job did, read from its events: what ``run`` prints, and the command's exit status."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import dagster as dg
from dagster._core.definitions.events import AssetMaterialization, AssetObservation
from dagster._core.errors import DagsterAssetCheckFailedError, DagsterExecutionInterruptedError

from token_pipelines.defs import numbers, volume
from token_pipelines.defs.failures import EXIT_STATUS_KEY
from token_pipelines.defs.names import Names


@dataclass
class TierNumbers:
    """One tier's numbers of one run, counted in notices."""

    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(numbers.OUTCOMES, 0))
    skipped: dict[str, int] = field(default_factory=dict)
    is_known: bool = False
    """Whether the tier was run: without, zeros say nothing."""
    not_written_back: int | None = None
    rate: float | None = None
    """Messages a second, as at the end; None where nothing limited it."""

    def as_object(self) -> dict[str, object]:
        """As in ``run --json``."""
        known = {} if self.not_written_back is None else {numbers.NOT_WRITTEN_BACK: self.not_written_back}
        rate = {} if self.rate is None else {numbers.RATE: self.rate}
        return {**self.outcomes, "skipped": self.skipped, **known, **rate}


@dataclass
class DayReport:
    """What a run did, read from its events."""

    day: date
    pipeline: str | None
    run_id: str
    mode: str
    now: str
    succeeded: bool
    tiers: dict[str, TierNumbers]
    fuse: dict[str, object]
    is_read: bool = False
    """Whether the tokens were read: without, zeros say nothing."""
    examined: int = 0
    due: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    worst_exit_status: int = 0
    interrupted: bool = False
    write_back_fault: str = ""

    @property
    def exit_status(self) -> int:
        """0: done. 1: the run failed, or a due notice was not delivered. 2: the config is wrong."""
        if not self.succeeded:
            return max(1, self.worst_exit_status)
        return int(self.mode != "dry_run" and any(self._counts_of_undelivered().values()))

    def _counts_of_undelivered(self) -> dict[str, int]:
        outcomes = ("deferred", "failed", "unknown", "waiting")
        return {outcome: sum(tier.outcomes[outcome] for tier in self.tiers.values()) for outcome in outcomes}

    def _undelivered(self) -> str:
        """Why a run in which nothing broke ends with 1."""
        counts = ", ".join(f"{outcome} {count:,}" for outcome, count in self._counts_of_undelivered().items() if count)
        option = f" --pipeline {self.pipeline}" if self.pipeline else ""
        return (
            f"Not every notice that was due is delivered ({counts}); "
            f"`token-pipelines history{option} --date {self.day} --json` shows what the relay answered."
        )

    def as_object(self) -> dict[str, object]:
        """As printed by ``run --json``."""
        return {
            **({} if self.pipeline is None else {"pipeline": self.pipeline}),
            "date": self.day.isoformat(),
            "run_id": self.run_id,
            "status": "success" if self.succeeded else "failure",
            "mode": self.mode,
            "now": self.now,
            "fuse": self.fuse,
            "tokens": {"examined": self.examined, "due": self.due, "reasons": self.reasons},
            "tiers": {name: tier.as_object() for name, tier in self.tiers.items()},
        }

    def read(self, events: Sequence[dg.DagsterEvent]) -> None:
        """Take the run's numbers and failures from its events."""
        for event in events:
            data = event.event_specific_data
            if event.is_step_failure:
                self._read_failure(event)
            elif isinstance(data, dg.AssetCheckEvaluation) and data.check_name == volume.CHECK and not data.passed:
                self.fuse["tripped"] = True
                self._add_failure(data.description)
            described = getattr(data, "materialization", None) or getattr(data, "asset_observation", None)
            if isinstance(described, AssetMaterialization | AssetObservation):
                self._read_numbers(described.asset_key, described.metadata)
        if not self.failures and self.exit_status:
            self._add_failure(self._undelivered())
        missed = max(tier.not_written_back or 0 for tier in self.tiers.values())
        if missed:
            self._add_failure(numbers.explain_write_back(missed, self.write_back_fault))

    def _add_failure(self, sentence: str | None) -> None:
        """Add a sentence, unless it is there: when the fuse trips, the check and the planning step say the same."""
        if sentence and sentence not in self.failures:
            self.failures.append(sentence)

    def _read_failure(self, event: dg.DagsterEvent) -> None:
        failure = event.step_failure_data.user_failure_data
        if failure is not None:
            self._add_failure(failure.description)
            exit_status = int(str(failure.metadata[EXIT_STATUS_KEY].value))
            self.worst_exit_status = max(self.worst_exit_status, exit_status)
            return
        error = event.step_failure_data.error
        kind = (error.cls_name if error else None) or "an unknown error"
        if kind == DagsterExecutionInterruptedError.__name__:
            self.interrupted = True
            self._add_failure("The run was interrupted; what it had not sent waits for the next run.")
        elif kind != DagsterAssetCheckFailedError.__name__:  # the check itself has said why
            self._add_failure(f"{event.step_key} failed by {kind}; the run's log in the Dagster UI has the details.")

    def _read_numbers(self, key: dg.AssetKey, metadata: Mapping[str, Any]) -> None:
        if key == Names(self.pipeline).expiring_tokens:
            self.is_read = True
            self.examined, self.due = int(metadata["examined"].value), int(metadata["due"].value)
            self.reasons = numbers.read_numbers(metadata, numbers.REASON_PREFIX)
        elif key.path[-1] in self.tiers:
            tier = self.tiers[key.path[-1]]
            tier.is_known = True
            tier.outcomes = {outcome: int(metadata[outcome].value) for outcome in numbers.OUTCOMES}
            tier.skipped = numbers.read_numbers(metadata, numbers.SKIPPED_PREFIX)
            tier.rate = float(metadata[numbers.RATE].value) if numbers.RATE in metadata else None
            if numbers.NOT_WRITTEN_BACK in metadata:
                tier.not_written_back = int(metadata[numbers.NOT_WRITTEN_BACK].value)
            self.write_back_fault = numbers.read_text(metadata, numbers.WRITE_BACK_FAULT) or self.write_back_fault
