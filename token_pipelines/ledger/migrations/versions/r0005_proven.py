"""Whether a delivery report came to the address that only the notice's own email has."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Reports that were read earlier stay as they are: nobody knows any more where they came to."""
    op.execute("ALTER TABLE attempts ADD COLUMN proven BOOLEAN")


def downgrade() -> None:
    """Forget it."""
    op.execute("ALTER TABLE attempts DROP COLUMN proven")
