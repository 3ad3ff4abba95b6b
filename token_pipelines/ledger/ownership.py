"""Whose ledger this is, so that an empty or an older one is noticed before everybody is told once more.

The ledger keeps which source it belongs to; its schema names the pipeline. A run stops where the ledger is empty and
another one in the same database, which the config names no longer, belongs to the same source; and where Dagster knows
of a run that the ledger does not. A person then says what is meant.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import URL, Connection, Engine, func, select, text
from sqlalchemy.dialects.postgresql import insert

from token_pipelines.errors import LedgerError
from token_pipelines.ledger.tables import SCHEMA, notices, owner, runs, told_before
from token_pipelines.model import rfc3339


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """Who works with a ledger."""

    option: str
    """What a command needs to work on this pipeline: `` --pipeline user_tokens``, or nothing."""

    source: str
    """What stands for the source's database: see `source_key`."""

    schemas: frozenset[str]
    """The schemas of all pipelines that the config names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownRun:
    """The newest run of this pipeline that completed a tier, as Dagster's storage knows it."""

    run_id: str
    at: datetime
    reach: datetime
    """Every threshold before this instant was told, then or earlier."""


def source_key(url: URL) -> str:
    """A hash of where the source is, without user, password and driver: the same for the same database."""
    hosts = url.host or url.query.get("host") or ""
    host = hosts if isinstance(hosts, str) else ",".join(hosts)
    place = (url.get_backend_name(), host.lower(), str(url.port or ""), url.database or "")
    return hashlib.sha256("\n".join(place).encode()).hexdigest()


class Ownership:
    """The owner of one ledger, and the ledgers beside it."""

    def __init__(self, engine: Engine, schema: str) -> None:
        """Work on the ledger in this schema of the database that ``engine`` reaches."""
        self._engine = engine
        self._schema = schema

    def check(self, mine: Owner, *, newest: KnownRun | None, new_ledger: bool, at: datetime) -> None:
        """Record the owner, unless it looks as if the ledger of this pipeline was another one until now.

        Args:
            mine: the owner.
            newest: the newest run that Dagster knows of; None if it knows of none, or if there is no Dagster.
            new_ledger: a person says that this ledger is meant as it is.
            at: the present instant.

        Raises:
            LedgerError: with the ways on. Nothing is planned or sent then.
        """
        with self._engine.begin() as connection:
            if new_ledger:
                _record(connection, mine, new_at=at)
                return
            word = _last_word(connection)
            if word is None and not _has_notices(connection):
                other = self._abandoned(connection, mine)
                if other is not None:
                    raise LedgerError(self._explain_abandoned(other, mine))
            if newest is not None and (word is None or word < newest.at) and not _knows(connection, newest.run_id):
                raise LedgerError(_explain_unknown_run(newest, mine, at))
            _record(connection, mine, new_at=None)

    def _abandoned(self, connection: Connection, mine: Owner) -> str | None:
        """The schema of a ledger with notices of the same source that no pipeline of the config uses."""
        for schema in connection.scalars(_BESIDE, {"schemas": [*mine.schemas, self._schema], "prefix": SCHEMA}).all():
            source = None
            if connection.scalar(text("SELECT to_regclass(:name)"), {"name": f"{schema}.{owner.name}"}) is not None:
                source = connection.scalar(text(f'SELECT source FROM "{schema}".{owner.name}'))  # noqa: S608 -- see _BESIDE
            if source not in {None, mine.source}:
                continue
            if connection.scalar(text(f'SELECT EXISTS (SELECT FROM "{schema}".{notices.name})')):  # noqa: S608 -- as above
                return str(schema)
        return None

    def _explain_abandoned(self, other: str, mine: Owner) -> str:
        return (
            f"The ledger in the schema {self._schema} is empty, but the schema {other} beside it knows who was told of "
            f"this source's tokens, and no pipeline of the config uses it. Nothing was planned and nobody is told. If "
            f"the pipeline was renamed, rename its ledger too: DROP SCHEMA IF EXISTS {self._schema} CASCADE; "
            f"ALTER SCHEMA {other} RENAME TO {self._schema}. If a new ledger is meant, run `token-pipelines "
            f"run{mine.option} --new-ledger`: it tells everybody who is due, those too whom the other one has told."
        )


def _explain_unknown_run(newest: KnownRun, mine: Owner, at: datetime) -> str:
    yes = " --yes" if newest.reach > at else ""
    return (
        f"Dagster knows of a complete run, at {rfc3339(newest.at.replace(microsecond=0))}, that this ledger does not: "
        "it was restored from an older backup, or ledger.url leads to another database. Nothing was planned and nobody "
        "is told. Correct ledger.url, or restore a newer backup. If there is none, count what that run has told as "
        f"told: `token-pipelines mark-notified{mine.option} --before {rfc3339(newest.reach)}{yes}`. If a new ledger is "
        f"meant, run `token-pipelines run{mine.option} --new-ledger`: it tells everybody who is due by what it knows."
    )


# Schemas of ledgers whose tables this account may read. Their names need no quotes: they are made of what _NAME allows.
_BESIDE = text("""
SELECT space.nspname FROM pg_namespace AS space
JOIN pg_class AS kept ON kept.relnamespace = space.oid AND kept.relname = 'notices' AND kept.relkind = 'r'
WHERE (space.nspname = :prefix OR space.nspname ~ ('^' || :prefix || '_[a-z][a-z0-9_]*$'))
    AND space.nspname <> ALL(:schemas)
    AND has_schema_privilege(space.oid, 'USAGE') AND has_table_privilege(kept.oid, 'SELECT')
ORDER BY space.nspname
""")


def _has_notices(connection: Connection) -> bool:
    return bool(connection.scalar(select(select(notices.c.notice_id).exists())))


def _last_word(connection: Connection) -> datetime | None:
    """When a person last said what was told outside this ledger: by --new-ledger, or by `mark-notified`."""
    marked, meant = select(func.max(told_before.c.at)).scalar_subquery(), select(owner.c.new_at).scalar_subquery()
    found: datetime | None = connection.scalar(select(func.greatest(marked, meant)))
    return found


def _knows(connection: Connection, run_id: str) -> bool:
    return connection.scalar(select(runs.c.run_id).where(runs.c.run_id == run_id)) is not None


def _record(connection: Connection, mine: Owner, *, new_at: datetime | None) -> None:
    changed: dict[str, object] = {"source": mine.source} | ({} if new_at is None else {"new_at": new_at})
    row = insert(owner).values({"is_owner": True, **changed})
    # Most runs change nothing, and then write nothing.
    differs = None if new_at else owner.c.source != mine.source
    connection.execute(row.on_conflict_do_update(index_elements=[owner.c.is_owner], set_=changed, where=differs))
