"""Brings the ledger's schema up to date, and refuses one that is newer than this code."""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from token_pipelines.errors import LedgerError
from token_pipelines.ledger.tables import SCHEMA

MIGRATION_LOCK: Final = 0x746F6B656E31
"""Advisory lock that lets one process migrate at a time ("token1" in ASCII)."""


def bring_up_to_date(engine: Engine) -> None:
    """Create or upgrade the schema, in one transaction. Cheap when there is nothing to do.

    Raises:
        LedgerError: if the schema comes from a newer version of the product.
    """
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    scripts = ScriptDirectory.from_config(config)
    with engine.connect() as connection:
        if _revision(connection) == scripts.get_current_head():
            return
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        found = _revision(connection)
        known = {script.revision for script in scripts.walk_revisions()}
        if found is not None and found not in known:
            msg = f"The ledger's schema is at revision {found}, newer than this version knows; upgrade token-pipelines."
            raise LedgerError(msg)
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _revision(connection: Connection) -> str | None:
    if connection.scalar(text("SELECT to_regclass(:name)"), {"name": f"{SCHEMA}.alembic_version"}) is None:
        return None
    options = {"version_table_schema": SCHEMA}
    return MigrationContext.configure(connection, opts=options).get_current_revision()
