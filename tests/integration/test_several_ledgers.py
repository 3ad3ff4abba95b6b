"""Several pipelines in one ledger database, over the same token ids: nothing of one is ever seen by another."""

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from support.ledger import ledger_at
from support.pipeline import DAY, NOW, PipelineRunner, Registry, write_config
from support.smtpd import Action, Smtpd

from token_pipelines.config import Config
from token_pipelines.errors import FuseTripped, LedgerError
from token_pipelines.ledger import ledger as ledger_module
from token_pipelines.ledger.ledger import Ledger
from token_pipelines.ledger.locks import MIGRATION_LOCK, PLANNING_LOCK, lock_key
from token_pipelines.ledger.tables import SCHEMA, metadata
from token_pipelines.model import Mode
from token_pipelines.pipeline import Pipeline

NAMES = ("user_tokens", "deploy_keys")
DAY_AND_WEEK = [{"name": "day", "before": "1d"}, {"name": "week", "before": "7d"}]

Both = Callable[..., tuple[PipelineRunner, PipelineRunner]]


@pytest.fixture
def both(tmp_path: Path, registry_url: str) -> Both:
    """Configure two pipelines that read the same tokens; ``of_keys`` are sections of the second."""

    def make(port: int, of_keys: dict[str, Any] | None = None) -> tuple[PipelineRunner, PipelineRunner]:
        pipelines = {"user_tokens": {}, "deploy_keys": of_keys or {}}
        path = write_config(tmp_path, registry_url, port, pipelines=pipelines)
        users, keys = (PipelineRunner.named(path, name) for name in NAMES)
        return users, keys

    return make


def sent(pipeline: PipelineRunner) -> list[tuple[str, str]]:
    """Of each notice of the history: its recipient and its state."""
    return [(entry["recipient_id"], entry["state"]) for entry in pipeline.history()]


def schemas(registry: Registry) -> list[str]:
    found = registry.execute("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'token%%' ORDER BY 1")
    return [str(name) for (name,) in found]


def test_each_sends_its_own_of_the_same_tokens(registry: Registry, both: Both) -> None:
    ada = registry.user("ada", email="ada@example.org")
    registry.token(ada, expires_at=NOW + 2 * DAY)
    with Smtpd() as relay:
        users, keys = both(relay.port)
        assert users.run(NOW).sent == 1
        assert sent(users) == [(str(ada), "sent")]
        assert sent(keys) == []
        assert keys.run(NOW).sent == 1
        assert [users.run(NOW).sent, keys.run(NOW).sent] == [0, 0]
    assert [accepted.recipient for accepted in relay.accepted] == ["ada@example.org"] * 2
    assert len({accepted.message["Message-ID"] for accepted in relay.accepted}) == 2
    assert schemas(registry) == ["token_pipelines_deploy_keys", "token_pipelines_user_tokens"]


def test_each_has_its_own_tiers_at_its_own_ladder(registry: Registry, both: Both) -> None:
    ada = registry.user("ada", email="ada@example.org")
    registry.token(ada, expires_at=NOW + 20 * DAY)
    with Smtpd() as relay:
        users, keys = both(relay.port, {"tiers": DAY_AND_WEEK})
        assert {name: report.sent for name, report in users.run(NOW).tiers.items() if report.sent} == {"month": 1}
        assert keys.run(NOW).examination.examined == 0
        assert {name: report.sent for name, report in keys.run(NOW + 13 * DAY).tiers.items()} == {"day": 0, "week": 1}


def test_suppression_and_fuse_are_each_ones_own(registry: Registry, both: Both) -> None:
    for name in ("ada", "bob"):
        registry.token(registry.user(name, email=f"{name}@example.org"), expires_at=NOW + 2 * DAY)
    with Smtpd(script=_no_such_user) as relay:
        users, keys = both(relay.port, {"delivery": {"max_notices": 1}})
        assert users.run(NOW).numbers == {"sent": 1, "failed": 1}
        with pytest.raises(FuseTripped, match=r"approve it \(token-pipelines run --pipeline deploy_keys --approve-vol"):
            keys.run(NOW)
    assert [suppressed(pipeline.config) for pipeline in (users, keys)] == [1, 0]
    assert [has_open_trip(pipeline.config) for pipeline in (users, keys)] == [False, True]
    with Smtpd() as relay:
        users, keys = both(relay.port, {"delivery": {"max_notices": 1}})
        assert users.run(NOW).sent == 0
        assert keys.run(NOW, approve=True).sent == 2


def _no_such_user(stage: str, argument: str) -> Action | None:
    return Action(code=550, text="5.1.1 no such user") if stage == "rcpt" and "bob" in argument else None


def suppressed(config: Config) -> int:
    with closing(Ledger.of(config)) as ledger:
        return len(list(ledger.suppressions.listed()))


def has_open_trip(config: Config) -> bool:
    with closing(Ledger.of(config)) as ledger:
        return ledger.fuse.open_trip(Mode.LIVE, max_notices=0) is not None


def test_single_and_named_do_not_mix(registry: Registry, both: Both, tmp_path: Path) -> None:
    """An operator who turns a single pipeline into a named one begins a new ledger, but only by their own word."""
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 2 * DAY)
    with Smtpd() as relay:
        single = PipelineRunner(tmp_path, registry.url, relay.port)
        assert single.run(NOW).sent == 1
        before = registry.execute("SELECT * FROM token_pipelines.notices")
        users, _ = both(relay.port)
        with pytest.raises(LedgerError, match="the schema token_pipelines beside it knows who was told"):
            users.run(NOW)
        with closing(Pipeline(users.config)) as meant:
            meant.check_ledger(new_ledger=True)
        assert users.run(NOW).sent == 1
    assert registry.execute("SELECT * FROM token_pipelines.notices") == before


def test_schema_that_was_renamed_is_the_named_ones_history(registry: Registry, both: Both, tmp_path: Path) -> None:
    ada = registry.user("ada", email="ada@example.org")
    registry.token(ada, expires_at=NOW + 2 * DAY)
    with Smtpd() as relay:
        assert PipelineRunner(tmp_path, registry.url, relay.port).run(NOW).sent == 1
        registry.execute("ALTER SCHEMA token_pipelines RENAME TO token_pipelines_user_tokens")
        users, keys = both(relay.port)
        assert users.run(NOW).sent == 0
        assert sent(users) == [(str(ada), "sent")]
        assert keys.run(NOW).sent == 1


def test_ledger_without_tables_never_reads_those_of_another_schema(registry: Registry) -> None:
    """Not even public's, in which an operator's own table may be called notices."""
    registry.execute("CREATE TABLE notices (notice_id uuid)")
    with closing(ledger_at(registry.url)) as single:
        single.migrate()
    with closing(ledger_at(registry.url, pipeline="user_tokens")) as named:
        assert named.told.before(Mode.LIVE) is None
        with pytest.raises(
            LedgerError, match="lacks the ledger's tables; run `token-pipelines run` once: it makes the"
        ):
            list(named.history.entries())
    assert schemas(registry) == ["token_pipelines"]


def test_both_schemas_are_made_alike(registry: Registry) -> None:
    made = []
    for name in (None, "user_tokens"):
        with closing(ledger_at(registry.url, pipeline=name)) as ledger:
            ledger.migrate()
            made.append(_tables(registry, ledger.schema))
    assert made[0] == made[1]
    assert {table.name for table in metadata.tables.values()} < made[0]


def _tables(registry: Registry, schema: str) -> set[str]:
    found = registry.execute("SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace", schema)
    return {str(name) for (name,) in found}


def test_planning_of_one_does_not_wait_for_another(registry: Registry) -> None:
    users, keys = (ledger_at(registry.url, pipeline=name) for name in NAMES)
    with closing(users), closing(keys):
        users.migrate()
        keys.migrate()
        with (
            users.planning(run_id="1", mode=Mode.LIVE),
            psycopg.connect(registry.url, options="-c lock_timeout=5s") as third,
        ):
            third.execute("SELECT pg_advisory_xact_lock(%s)", [lock_key(PLANNING_LOCK, keys.schema)])
            assert not _free(third, lock_key(PLANNING_LOCK, users.schema))


def _free(connection: psycopg.Connection[Any], key: int) -> bool:
    row = connection.execute("SELECT pg_try_advisory_xact_lock(%s)", [key]).fetchone()
    assert row is not None
    return bool(row[0])


def test_lock_keys_are_all_different_and_a_single_pipelines_stay() -> None:
    """Pinned: two versions of the product at work during an upgrade must lock the same."""
    keys = [lock_key(lock, schema) for lock in (MIGRATION_LOCK, PLANNING_LOCK) for schema in _schemas()]
    assert len(set(keys)) == len(keys)
    assert all(-(2**63) <= key < 2**63 for key in keys)
    assert lock_key(PLANNING_LOCK, "token_pipelines") == 0x746F6B656E32
    assert lock_key(MIGRATION_LOCK, "token_pipelines") == 0x746F6B656E31
    assert lock_key(PLANNING_LOCK, "token_pipelines_user_tokens") == USER_TOKENS_PLANNING


USER_TOKENS_PLANNING = 374_289_813_841_067_927


def _schemas() -> Sequence[str]:
    return ["token_pipelines", "token_pipelines_a", "token_pipelines_b", "token_pipelines_user_tokens"]


def test_product_opens_a_ledger_by_its_config_alone() -> None:
    """A ledger that is opened by its URL is a single pipeline's, whatever the config says."""
    product = Path(ledger_module.__file__).parents[1]
    found = [
        path.name for path in product.rglob("*.py") if re.search(r"(?<!class )\bLedger\(", path.read_text("utf-8"))
    ]
    assert found == []


def test_every_statement_of_the_ledger_names_the_schema() -> None:
    """The engine puts the pipeline's own in its place. The search_path is empty, and cannot stand in for it."""
    tables = "|".join(table.name for table in metadata.tables.values())
    folder = Path(ledger_module.__file__).parent
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted(folder.glob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(rf"\b(FROM|JOIN|INTO|UPDATE|USING|TABLE) ({tables})\b", line)
    ]
    assert found == []
    assert all(table.schema == SCHEMA for table in metadata.tables.values())
