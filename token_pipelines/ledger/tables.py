"""The ledger's tables for SQLAlchemy. The migrations create them; a test compares the two.

Tables and statements name the schema of a single pipeline. For another pipeline `ledger.connections` puts the schema of
that one in its place, in every statement, so one pipeline cannot reach another's ledger.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import UUID

from token_pipelines.model import Mode, State

SCHEMA: Final = "token_pipelines"
"""The schema of a single pipeline, and the prefix of all others."""

metadata = MetaData(
    schema=SCHEMA,
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s",
    },
)


def schema_of(pipeline: str | None) -> str:
    """The schema of a pipeline's ledger: ``token_pipelines``, or ``token_pipelines_user_tokens``."""
    return SCHEMA if pipeline is None else f"{SCHEMA}_{pipeline}"


def _instant(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _one_of(column: str, values: list[str]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


notices = Table(
    "notices",
    metadata,
    Column("notice_id", UUID(as_uuid=False), primary_key=True),
    Column("day", Date, nullable=False),  # the partition that planned it: a label
    Column("mode", Text, nullable=False),
    Column("tier", Text, nullable=False),
    Column("recipient_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("message_id", Text, nullable=False),
    Column("planned_by", Text, nullable=False),
    _instant("planned_at"),
    Column("claimed_by", Text),
    Column("claimed_from", Text),
    Column("attempts", Integer, nullable=False, server_default="0"),
    _instant("first_tried_at", nullable=True),
    _instant("sent_at", nullable=True),
    _one_of("state", [str(state) for state in State]),
    _one_of("mode", [str(Mode.LIVE), str(Mode.REDIRECT)]),
    CheckConstraint("(state IN ('claimed', 'sending')) = (claimed_by IS NOT NULL)", name="claimed_by_a_run"),
    CheckConstraint("(claimed_by IS NULL) = (claimed_from IS NULL)", name="claimed_from_a_state"),
    CheckConstraint("(state = 'sent') = (sent_at IS NOT NULL)", name="sent_at_an_instant"),
    CheckConstraint("state <> 'skipped' OR reason IS NOT NULL", name="skipped_for_a_reason"),
    # No index on the state: it changes three times a message. Without an index these updates are heap-only (HOT).
    Index("notices_by_day", "day"),
    Index("notices_by_planning", "planned_at"),  # not by day: a backfilled notice has an old day
    Index("notices_by_recipient", "recipient_id"),
)

notice_tokens = Table(
    "notice_tokens",
    metadata,
    Column("notice_id", UUID(as_uuid=False), ForeignKey(notices.c.notice_id, ondelete="CASCADE"), primary_key=True),
    Column("token_id", Text, primary_key=True),
    Column("recipient_id", Text, nullable=False),
    _instant("expires_at"),
    _instant("threshold"),
    Column("mode", Text, nullable=False),
    Column("tier", Text, nullable=False),
    Column("released", Boolean, nullable=False, server_default="false"),
    Column("reason", Text),  # why the token was dropped from the notice
    Index(
        "notice_tokens_told_once",
        "token_id",
        "recipient_id",
        "expires_at",
        "threshold",
        "mode",
        unique=True,
        postgresql_where=text("NOT released"),
    ),
    Index("notice_tokens_by_expiry", "expires_at"),
)

on_sent = Table(
    "on_sent",
    metadata,
    Column("notice_id", UUID(as_uuid=False), ForeignKey(notices.c.notice_id, ondelete="CASCADE"), primary_key=True),
)

attempts = Table(
    "attempts",
    metadata,
    Column("attempt_id", BigInteger, Identity(always=True), primary_key=True),
    Column("notice_id", UUID(as_uuid=False), ForeignKey(notices.c.notice_id, ondelete="CASCADE"), nullable=False),
    _instant("at"),
    Column("run_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("stage", Text),
    Column("code", Integer),
    Column("enhanced", Text),
    Column("reply", Text),
    Column("queue_id", Text),
    Column("address_hash", LargeBinary),
    Column("proven", Boolean),  # of a delivery report: whether it came to the address that only this notice's email has
    Index("attempts_by_notice", "notice_id"),
    Index("attempts_by_time", "at", postgresql_using="brin"),  # a few pages, however many attempts there are
    Index("attempts_with_hash", "at", postgresql_where=text("address_hash IS NOT NULL")),
)

delivery_reports = Table(
    "delivery_reports",
    metadata,
    Column("digest", LargeBinary, primary_key=True),  # of the message that reports
    Column("notice_id", UUID(as_uuid=False), ForeignKey(notices.c.notice_id, ondelete="CASCADE"), nullable=False),
    Column("attempt_id", BigInteger),  # the attempt that says that it came back; none for a complaint
    Column("run_id", Text, nullable=False),  # the run that sent it
    _instant("sent_at"),
    _instant("at"),
    Column("cause", Text),  # the enhanced status, or "complaint"
    Column("may_suppress", Boolean, nullable=False),
    Column("believed", Boolean),  # null: not judged yet
    _instant("judged_at", nullable=True),
    Index("delivery_reports_by_notice", "notice_id"),
)

read_messages = Table(
    "read_messages",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    _instant("at"),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    _instant("started_at"),
    _instant("heartbeat_at"),
    _instant("ended_at", nullable=True),
)

suppressions = Table(
    "suppressions",
    metadata,
    Column("address_hash", LargeBinary, primary_key=True),
    _instant("at"),
    Column("cause", Text, nullable=False),
)

fuse_trips = Table(
    "fuse_trips",
    metadata,
    Column("trip_id", BigInteger, Identity(always=True), primary_key=True),
    _instant("at"),
    Column("day", Date, nullable=False),
    Column("mode", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("new_notices", Integer, nullable=False),
    Column("max_notices", Integer, nullable=False),
    _instant("approved_at", nullable=True),
    Column("approved_by", Text),
)

plans = Table(
    "plans",
    metadata,
    Column("plan_id", BigInteger, Identity(always=True), primary_key=True),
    _instant("at"),
    Column("day", Date, nullable=False),
    Column("mode", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("new_notices", Integer, nullable=False),
    Column("approved_by", Text),
    Index("plans_by_time", "at"),
)

planned_days = Table(
    "planned_days",
    metadata,
    Column("mode", Text, primary_key=True),
    Column("day", Date, primary_key=True),  # by the calendar, not the partition: a backfill counts on its own day
    Column("new_notices", Integer, nullable=False),
    Column("unapproved", Integer, nullable=False),  # of these, how many no person has approved
)

growth_trips = Table(
    "growth_trips",
    metadata,
    Column("trip_id", BigInteger, Identity(always=True), primary_key=True),
    _instant("at"),
    Column("day", Date, nullable=False),
    Column("mode", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("new_notices", Integer, nullable=False),
    Column("usual", Integer, nullable=False),
    _instant("approved_at", nullable=True),
)

owner = Table(
    "owner",
    metadata,
    Column("is_owner", Boolean, primary_key=True, server_default="true"),  # there is one row
    Column("source", Text, nullable=False),
    _instant("new_at", nullable=True),  # when a person said that this ledger is meant as it is
    CheckConstraint("is_owner", name="one_row"),
)

told_before = Table(
    "told_before",
    metadata,
    Column("entry_id", BigInteger, Identity(always=True), primary_key=True),
    _instant("at"),
    Column("mode", Text, nullable=False),
    _instant("before"),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)
