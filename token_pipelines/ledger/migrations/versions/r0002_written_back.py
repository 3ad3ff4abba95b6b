"""Which sent notices the source was told of by source.on_sent."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table. It stays empty where source.on_sent is not set."""
    op.execute("""
    CREATE TABLE written_back (
        notice_id UUID NOT NULL,
        CONSTRAINT written_back_pkey PRIMARY KEY (notice_id),
        CONSTRAINT written_back_notice_id_fkey FOREIGN KEY(notice_id) REFERENCES notices (notice_id) ON DELETE CASCADE
    )
    """)


def downgrade() -> None:
    """Forget it: the next run of a newer version tells the source again."""
    op.execute("DROP TABLE written_back")
