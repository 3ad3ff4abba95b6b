"""The check that shows what came back: two in a hundred are let pass, one more is not."""

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from support.pipeline import PipelineRunner, Registry

from token_pipelines.defs.build import JOB, build_defs
from token_pipelines.defs.checks import BOUNCE_WINDOW, BOUNCES_ALLOWED_PERCENT
from token_pipelines.defs.tags import PARTITION_TAG
from token_pipelines.ledger.bounces import Bounce, Kept

NOW = datetime.now(UTC)  # Dagster's own partitions end with the world's day
DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("sent", "bounced", "days_ago", "passed"),
    [
        (0, 0, 0, True),
        (100, BOUNCES_ALLOWED_PERCENT, 0, True),
        (100, BOUNCES_ALLOWED_PERCENT + 1, 0, False),
        (1, 1, BOUNCE_WINDOW.days, False),
        (1, 1, BOUNCE_WINDOW.days + 1, True),
    ],
)
def test_few_bounces(
    registry_url: str, tmp_path: Path, sent: int, bounced: int, days_ago: int, *, passed: bool
) -> None:
    """It warns, holds nothing up, and says what to look at."""
    pipeline = PipelineRunner(tmp_path, registry_url, 1)
    ledger = pipeline.parts(NOW).ledger
    ledger.migrate()
    registry = Registry(registry_url)
    for number in range(sent):
        notice_id = str(uuid.uuid4())
        registry.execute(
            "INSERT INTO token_pipelines.notices"
            " (notice_id, day, mode, tier, recipient_id, state, message_id, planned_by, planned_at, sent_at)"
            " VALUES (%s, %s, 'live', 'week', '9', 'sent', '<x>', 'r', now(), now())",
            notice_id,
            NOW.date() - days_ago * DAY,
        )
        if number < bounced:
            bounce = Bounce(
                digest=notice_id.encode(), notice_id=notice_id, at=NOW, code=550, enhanced="5.2.2", proven=True
            )
            assert ledger.bounces.keep(bounce) is Kept.RECORDED
    definitions = build_defs(pipeline.config, clock=lambda: NOW, storage=tmp_path / "parquet")
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_job_def(JOB).execute_in_process(
            instance=instance,
            partition_key=NOW.date().isoformat(),
            tags={PARTITION_TAG: NOW.date().isoformat()},
        )
    assert result.success
    [check] = [one for one in result.get_asset_check_evaluations() if one.check_name == "few_bounces"]
    assert check.asset_key == dg.AssetKey("expiring_tokens")
    assert (check.passed, check.severity, check.blocking) == (passed, dg.AssetCheckSeverity.WARN, False)
    counted = days_ago <= BOUNCE_WINDOW.days
    numbers = {name: check.metadata[name].value for name in ("sent", "bounced", "percent")}
    assert numbers == {
        "sent": sent * counted,
        "bounced": bounced * counted,
        "percent": pytest.approx(100 * bounced / sent if sent and counted else 0),
    }
    assert (check.description is None) == passed
    ledger.close()
