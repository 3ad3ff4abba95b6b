"""Migrates the ledger's schema to the current version. Refuses a schema that is newer than this code."""

from pathlib import Path

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from token_pipelines.errors import LedgerError
from token_pipelines.ledger.locks import MIGRATION_LOCK, lock_key


def bring_up_to_date(engine: Engine, schema: str) -> None:
    """Create or upgrade a schema, in one transaction. Cheap when there is nothing to do.

    Args:
        engine: the ledger's engine.
        schema: the schema's name: lower-case letters, digits and _.

    Raises:
        LedgerError: if the schema comes from a newer version of the product.
    """
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    with engine.connect() as connection:
        if _revision(connection, schema) == scripts.get_current_head():
            return
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": lock_key(MIGRATION_LOCK, schema)})
        found = _revision(connection, schema)
        known = {script.revision for script in scripts.walk_revisions()}
        if found is not None and found not in known:
            msg = f"The ledger's schema is at revision {found}, newer than this version knows; upgrade token-pipelines."
            raise LedgerError(msg)
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
        # Revisions name no schema: until this transaction ends, every name in them is one of this schema.
        connection.execute(text("SELECT set_config('search_path', :schema, true)"), {"schema": schema})
        config.attributes |= {"connection": connection, "schema": schema}
        command.upgrade(config, "head")


def _revision(connection: Connection, schema: str) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table_schema": schema}).get_current_revision()
