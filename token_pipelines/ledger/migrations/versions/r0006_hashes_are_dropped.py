"""An index to find the attempts that still have an address hash: old ones lose it."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Only those with a hash are in it, so it stays as small as what is needed."""
    op.execute("CREATE INDEX attempts_with_hash ON attempts (at) WHERE address_hash IS NOT NULL")


def downgrade() -> None:
    """Search all attempts again."""
    op.execute("DROP INDEX attempts_with_hash")
