"""The ledger: notices and their tokens, attempts, runs, suppressions, trips of the fuse.

No statement names a schema: while a migration runs, the search_path holds the pipeline's own and no other.
"""

from alembic import op

revision = "0001"
down_revision = None

STATEMENTS = (
    """
    CREATE TABLE fuse_trips (
        trip_id BIGINT GENERATED ALWAYS AS IDENTITY,
        at TIMESTAMP WITH TIME ZONE NOT NULL,
        day DATE NOT NULL,
        mode TEXT NOT NULL,
        run_id TEXT NOT NULL,
        new_notices INTEGER NOT NULL,
        max_notices INTEGER NOT NULL,
        approved_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT fuse_trips_pkey PRIMARY KEY (trip_id)
    )
    """,
    """
    CREATE TABLE marks (
        mark_id BIGINT GENERATED ALWAYS AS IDENTITY,
        at TIMESTAMP WITH TIME ZONE NOT NULL,
        mode TEXT NOT NULL,
        before TIMESTAMP WITH TIME ZONE NOT NULL,
        CONSTRAINT marks_pkey PRIMARY KEY (mark_id)
    )
    """,
    """
    CREATE TABLE notices (
        notice_id UUID NOT NULL,
        day DATE NOT NULL,
        mode TEXT NOT NULL,
        tier TEXT NOT NULL,
        recipient_id TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT,
        message_id TEXT NOT NULL,
        planned_by TEXT NOT NULL,
        planned_at TIMESTAMP WITH TIME ZONE NOT NULL,
        claimed_by TEXT,
        claimed_from TEXT,
        attempts INTEGER DEFAULT '0' NOT NULL,
        first_tried_at TIMESTAMP WITH TIME ZONE,
        sent_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT notices_pkey PRIMARY KEY (notice_id),
        CONSTRAINT notices_state_known CHECK (state IN ('planned', 'claimed', 'sending', 'sent', 'deferred', 'unknown', 'failed', 'skipped', 'withdrawn')),
        CONSTRAINT notices_mode_known CHECK (mode IN ('live', 'redirect')),
        CONSTRAINT notices_claimed_by_a_run CHECK ((state IN ('claimed', 'sending')) = (claimed_by IS NOT NULL)),
        CONSTRAINT notices_claimed_from_a_state CHECK ((claimed_by IS NULL) = (claimed_from IS NULL)),
        CONSTRAINT notices_sent_at_an_instant CHECK ((state = 'sent') = (sent_at IS NOT NULL)),
        CONSTRAINT notices_skipped_for_a_reason CHECK (state <> 'skipped' OR reason IS NOT NULL)
    )
    """,
    """
    CREATE INDEX notices_by_day ON notices (day)
    """,
    """
    CREATE INDEX notices_by_planning ON notices (planned_at)
    """,
    """
    CREATE INDEX notices_by_recipient ON notices (recipient_id)
    """,
    """
    CREATE TABLE runs (
        run_id TEXT NOT NULL,
        started_at TIMESTAMP WITH TIME ZONE NOT NULL,
        heartbeat_at TIMESTAMP WITH TIME ZONE NOT NULL,
        ended_at TIMESTAMP WITH TIME ZONE,
        CONSTRAINT runs_pkey PRIMARY KEY (run_id)
    )
    """,
    """
    CREATE TABLE secrets (
        name TEXT NOT NULL,
        value BYTEA NOT NULL,
        CONSTRAINT secrets_pkey PRIMARY KEY (name)
    )
    """,
    """
    CREATE TABLE suppressions (
        address_hash BYTEA NOT NULL,
        at TIMESTAMP WITH TIME ZONE NOT NULL,
        cause TEXT NOT NULL,
        CONSTRAINT suppressions_pkey PRIMARY KEY (address_hash)
    )
    """,
    """
    CREATE TABLE attempts (
        attempt_id BIGINT GENERATED ALWAYS AS IDENTITY,
        notice_id UUID NOT NULL,
        at TIMESTAMP WITH TIME ZONE NOT NULL,
        run_id TEXT NOT NULL,
        state TEXT NOT NULL,
        stage TEXT,
        code INTEGER,
        enhanced TEXT,
        reply TEXT,
        queue_id TEXT,
        address_hash BYTEA,
        CONSTRAINT attempts_pkey PRIMARY KEY (attempt_id),
        CONSTRAINT attempts_notice_id_fkey FOREIGN KEY(notice_id) REFERENCES notices (notice_id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX attempts_by_notice ON attempts (notice_id)
    """,
    """
    CREATE TABLE notice_tokens (
        notice_id UUID NOT NULL,
        token_id TEXT NOT NULL,
        recipient_id TEXT NOT NULL,
        expires_at TIMESTAMP WITH TIME ZONE NOT NULL,
        threshold TIMESTAMP WITH TIME ZONE NOT NULL,
        mode TEXT NOT NULL,
        tier TEXT NOT NULL,
        released BOOLEAN DEFAULT 'false' NOT NULL,
        reason TEXT,
        CONSTRAINT notice_tokens_pkey PRIMARY KEY (notice_id, token_id),
        CONSTRAINT notice_tokens_notice_id_fkey FOREIGN KEY(notice_id) REFERENCES notices (notice_id) ON DELETE CASCADE
    )
    """,
    """
    CREATE INDEX notice_tokens_by_expiry ON notice_tokens (expires_at)
    """,
    """
    CREATE UNIQUE INDEX notice_tokens_told_once ON notice_tokens (token_id, recipient_id, expires_at, threshold, mode) WHERE NOT released
    """,
)


def upgrade() -> None:
    """Make the tables; the schema itself is there already."""
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    """Refuse: without the ledger nobody knows who was told."""
    msg = "The ledger is not dropped by a migration; drop the schema by hand if you mean it."
    raise NotImplementedError(msg)
