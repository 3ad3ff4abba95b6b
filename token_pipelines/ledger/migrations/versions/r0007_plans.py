"""What each run has planned, for the volume fuse; and who approved a volume."""

from alembic import op

revision = "0007"
down_revision = "0006"

STATEMENTS = (
    """
    CREATE TABLE plans (
        plan_id BIGINT GENERATED ALWAYS AS IDENTITY,
        at TIMESTAMP WITH TIME ZONE NOT NULL,
        day DATE NOT NULL,
        mode TEXT NOT NULL,
        run_id TEXT NOT NULL,
        new_notices INTEGER NOT NULL,
        approved_by TEXT,
        CONSTRAINT plans_pkey PRIMARY KEY (plan_id)
    )
    """,
    "CREATE INDEX plans_by_time ON plans (at)",
    "ALTER TABLE fuse_trips ADD COLUMN approved_by TEXT",
)


def upgrade() -> None:
    """Nobody knows who approved earlier trips."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Forget both."""
    op.execute("ALTER TABLE fuse_trips DROP COLUMN approved_by")
    op.execute("DROP TABLE plans")
