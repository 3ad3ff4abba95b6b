"""The names of a pipeline's assets, ops, jobs and resources in Dagster; prefixed if there are several pipelines."""

from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from token_pipelines.defs.heartbeat import RunHeartbeat
from token_pipelines.defs.overrides import Overrides
from token_pipelines.defs.run_log import RunLog
from token_pipelines.pipeline import Pipeline

LEVELS: Final = "__"
"""Separates a pipeline's name from that of an op, a job or a sensor. Dagster allows no slash there."""

PIPELINE: Final = "pipeline"
OVERRIDES: Final = "overrides"
HEARTBEAT: Final = "heartbeat"
RUN_LOG: Final = "run_log"
PARQUET: Final = "parquet"
SHARES: Final = "shares"


@dataclass(frozen=True)
class Names:
    """The names of one pipeline; ``prefix`` is its name, None where it has none."""

    prefix: str | None = None

    @property
    def group(self) -> str:
        """The group of its assets."""
        return self.prefix or "token_pipelines"

    @property
    def expiring_tokens(self) -> dg.AssetKey:
        """The key of the asset of a day's tokens."""
        return self._key("expiring_tokens")

    def notices(self, tier: str) -> dg.AssetKey:
        """The key of a tier's asset."""
        return self._key("notices", tier)

    def prefixed(self, name: str) -> str:
        """The name of an op, a job, a schedule, a sensor or a resource."""
        return name if self.prefix is None else f"{self.prefix}{LEVELS}{name}"

    @property
    def resources(self) -> set[str]:
        """The keys of the resources that its ops need."""
        return {self.prefixed(name) for name in (PIPELINE, OVERRIDES, HEARTBEAT, RUN_LOG)}

    def pipeline(self, context: Any) -> Pipeline:  # noqa: ANN401 -- op, asset and check contexts share no public type
        """The pipeline's parts, in an op, an asset or a check that asks for `resources`."""
        pipeline: Pipeline = getattr(context.resources, self.prefixed(PIPELINE))
        return pipeline

    def overrides(self, context: Any) -> Overrides:  # noqa: ANN401 -- as above
        """The parts that the caller of `build_defs` replaced."""
        overrides: Overrides = getattr(context.resources, self.prefixed(OVERRIDES))
        return overrides

    def heartbeat(self, context: Any) -> RunHeartbeat:  # noqa: ANN401 -- as above
        """The run's heartbeat in this pipeline's ledger."""
        heartbeat: RunHeartbeat = getattr(context.resources, self.prefixed(HEARTBEAT))
        return heartbeat

    def run_log(self, context: Any) -> RunLog:  # noqa: ANN401 -- as above
        """The handler that copies the log of `day` into Dagster's."""
        run_log: RunLog = getattr(context.resources, self.prefixed(RUN_LOG))
        return run_log

    def _key(self, *path: str) -> dg.AssetKey:
        return dg.AssetKey([*([] if self.prefix is None else [self.prefix]), *path])
