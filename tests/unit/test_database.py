"""Database URLs as operators write them."""

import psycopg
import pytest
from sqlalchemy import make_url

from token_pipelines.database import PSYCOPG, DatabaseUrl, explain


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgres+psycopg", "postgresql+psycopg"])
def test_postgres_may_be_called_so(scheme: str) -> None:
    """As Heroku and many of its kind write it."""
    url = f"{scheme}://me:pass@db.example.org:5433/ops?sslmode=require"
    ours = make_url("postgresql://me:pass@db.example.org:5433/ops?sslmode=require")
    read = DatabaseUrl.read(url, "source.url")
    assert (read.backend, read.parsed.set(drivername="postgresql")) == ("postgresql", ours)
    assert DatabaseUrl.read_postgres(url, "ledger.url", PSYCOPG).parsed == ours.set(drivername=PSYCOPG)


URL_OF_ONE = DatabaseUrl.read("postgresql://me:hush@db.example.org/ops", "ledger.url")
LOST = "was lost while we spoke to it; run again; nothing is sent twice."


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly"),
        psycopg.OperationalError("the connection is lost"),
        psycopg.errors.AdminShutdown("gone"),
        psycopg.errors.ConnectionFailure("gone"),
        OSError("[libpq] SSL SYSCALL error: EOF detected"),
    ],
)
def test_connection_is_said_to_be_lost_where_it_is(error: Exception) -> None:
    assert explain(error, URL_OF_ONE).endswith(LOST)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (psycopg.errors.CheckViolation("hush"), "SQLSTATE 23514, CheckViolation"),
        (psycopg.errors.InvalidTextRepresentation("hush"), "SQLSTATE 22P02, InvalidTextRepresentation"),
        (psycopg.ProgrammingError("hush"), "ProgrammingError"),
        (Exception("hush"), "Exception"),
    ],
)
def test_other_error_is_said_by_its_code_and_never_by_its_words(error: Exception, code: str) -> None:
    assert explain(error, URL_OF_ONE) == (
        "The database of ledger.url (me@db.example.org/ops) answered with an error that we do not know "
        f"({code}); look into its log."
    )
