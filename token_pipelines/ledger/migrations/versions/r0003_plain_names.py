"""Tables are named after what they hold: what was told before, and what source.on_sent has done."""

from alembic import op

revision = "0003"
down_revision = "0002"

STATEMENTS = (
    "ALTER TABLE marks RENAME TO told_before",
    "ALTER TABLE told_before RENAME COLUMN mark_id TO entry_id",
    "ALTER TABLE told_before RENAME CONSTRAINT marks_pkey TO told_before_pkey",
    "ALTER SEQUENCE marks_mark_id_seq RENAME TO told_before_entry_id_seq",
    "ALTER TABLE written_back RENAME TO on_sent",
    "ALTER TABLE on_sent RENAME CONSTRAINT written_back_pkey TO on_sent_pkey",
    "ALTER TABLE on_sent RENAME CONSTRAINT written_back_notice_id_fkey TO on_sent_notice_id_fkey",
    # From Postgres 18 on, NOT NULL is a constraint with a name of its own.
    """
    DO $$
    DECLARE
        found record;
    BEGIN
        FOR found IN
            SELECT conrelid::regclass AS renamed, conname, format('%s_%s_not_null', relname, attname) AS plain
            FROM pg_constraint
            JOIN pg_class ON pg_class.oid = conrelid
            JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
            WHERE contype = 'n' AND conrelid IN ('told_before'::regclass, 'on_sent'::regclass)
        LOOP
            EXECUTE format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I', found.renamed, found.conname, found.plain);
        END LOOP;
    END $$
    """,
)


def upgrade() -> None:
    """Rename; no row changes."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Refuse: an older version would take the ledger's new names for missing tables."""
    msg = "The ledger is not taken back to an older version; restore a backup if you mean it."
    raise NotImplementedError(msg)
