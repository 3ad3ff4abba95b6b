"""Rows that cannot be read show in a check of their day, with the token and the column; the run is green."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from support.pipeline import PipelineRunner
from support.smtpd import Smtpd

from token_pipelines.defs.build import JOB, build_defs
from token_pipelines.defs.tags import PARTITION_TAG

NOW = datetime.now(UTC)  # Dagster's own partitions end with the world's day
DAY = timedelta(days=1)
QUERY = """
SELECT id AS token_id, person AS recipient_id, made AS created_at, ends AS expires_at, 'ci' AS token_name,
    NULL AS recipient_name, email
FROM tokens WHERE ends >= :expires_after AND ends < :expires_before
"""


def test_unreadable_rows_show_in_checks(tmp_path: Path, database_url: str, relay: Smtpd) -> None:
    """One row's id cannot be read, which the snapshot sees; another one's address, which is read before sending."""
    made, ends = (f"{NOW + span:%Y-%m-%dT%H:%M:%SZ}" for span in (-90 * DAY, 3 * DAY))
    with closing(sqlite3.connect(tmp_path / "tokens.db")) as connection, connection:
        connection.execute("CREATE TABLE tokens (id, person, made, ends, email)")
        for token_id, email in [
            ("'1'", "'a@example.org'"),
            ("CAST(x'fc' AS text)", "'b@example.org'"),
            ("'3'", "CAST(x'fc' AS text)"),
        ]:
            connection.execute(f"INSERT INTO tokens VALUES ({token_id}, 'p', '{made}', '{ends}', {email})")  # noqa: S608 -- a test's own
    (tmp_path / "tokens.sql").write_text(QUERY.replace("person AS", "'p' || id AS"), encoding="utf-8")
    source = {"url": f"sqlite:///{tmp_path / 'tokens.db'}", "query": "tokens.sql"}
    pipeline = PipelineRunner(tmp_path, database_url, relay.port, ledger_url=database_url, source=source)
    definitions = build_defs(pipeline.config, clock=lambda: NOW, storage=tmp_path / "parquet")
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_job_def(JOB).execute_in_process(
            instance=instance,
            partition_key=NOW.date().isoformat(),
            tags={PARTITION_TAG: NOW.date().isoformat()},
        )
    assert result.success
    assert [mail.recipient for mail in relay.accepted] == ["a@example.org"]
    checks = {
        (check.asset_key.to_user_string(), check.check_name): check for check in result.get_asset_check_evaluations()
    }
    cure = "correct the column's value, or convert it in source.query. Every other row was read."
    for check, named in [
        (checks["expiring_tokens", "every_row_is_readable"], "token_id \\xfc: token_id"),
        (checks["notices/week", "everyone_was_told"], "token_id 3: email"),
    ]:
        assert (check.passed, check.severity, check.blocking) == (False, dg.AssetCheckSeverity.WARN, False)
        said = f"Not readable in the source, so nobody is told about them: 1 row ({named}); {cure}"
        assert (check.description, check.metadata["unreadable"].value) == (said, 1)
