"""Delivery reports are judged by what else came back, and a reading remembers what it has seen."""

from alembic import op

revision = "0008"
down_revision = "0007"

STATEMENTS = (
    """
    CREATE TABLE delivery_reports (
        digest BYTEA NOT NULL,
        notice_id UUID NOT NULL,
        attempt_id BIGINT,
        run_id TEXT NOT NULL,
        sent_at TIMESTAMP WITH TIME ZONE NOT NULL,
        at TIMESTAMP WITH TIME ZONE NOT NULL,
        cause TEXT,
        may_suppress BOOLEAN NOT NULL,
        believed BOOLEAN,
        judged_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT delivery_reports_pkey PRIMARY KEY (digest),
        CONSTRAINT delivery_reports_notice_id_fkey FOREIGN KEY(notice_id) REFERENCES notices (notice_id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX delivery_reports_by_notice ON delivery_reports (notice_id)
    """,
    """
    CREATE TABLE read_messages (
        digest BYTEA NOT NULL,
        at TIMESTAMP WITH TIME ZONE NOT NULL,
        CONSTRAINT read_messages_pkey PRIMARY KEY (digest)
    )
    """,
    """
    CREATE INDEX attempts_by_time ON attempts USING brin (at)
    """,
)


def upgrade() -> None:
    """Make both tables. Reports that were read earlier were all believed, and stay so."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Drop them."""
    op.execute("DROP INDEX attempts_by_time")
    op.execute("DROP TABLE read_messages")
    op.execute("DROP TABLE delivery_reports")
