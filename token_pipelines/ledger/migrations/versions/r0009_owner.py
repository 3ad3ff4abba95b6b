"""The source that a ledger belongs to, so that an empty one beside it is noticed."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the table of one row; the next run fills it."""
    op.execute("""
        CREATE TABLE owner (
            is_owner boolean CONSTRAINT owner_pkey PRIMARY KEY DEFAULT true,
            source text NOT NULL,
            new_at timestamptz,
            CONSTRAINT owner_one_row CHECK (is_owner)
        )
    """)


def downgrade() -> None:
    """Forget the owner."""
    op.execute("DROP TABLE owner")
