"""How many notices each day has planned, and the days on which that was far more than usual."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Count from now on."""
    op.execute("""
        CREATE TABLE planned_days (
            mode text NOT NULL,
            day date NOT NULL,
            new_notices integer NOT NULL,
            unapproved integer NOT NULL,
            CONSTRAINT planned_days_pkey PRIMARY KEY (mode, day)
        )
    """)
    op.execute("""
        CREATE TABLE growth_trips (
            trip_id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT growth_trips_pkey PRIMARY KEY,
            at timestamptz NOT NULL,
            day date NOT NULL,
            mode text NOT NULL,
            run_id text NOT NULL,
            new_notices integer NOT NULL,
            usual integer NOT NULL,
            approved_at timestamptz
        )
    """)


def downgrade() -> None:
    """Forget the numbers."""
    op.execute("DROP TABLE planned_days, growth_trips")
