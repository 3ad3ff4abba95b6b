"""Runs the migrations on the connection that `token_pipelines.ledger.schema` hands over; there is no other way in."""

from alembic import context

from token_pipelines.ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table="alembic_version",
    version_table_schema=context.config.attributes["schema"],
)
with context.begin_transaction():
    context.run_migrations()
