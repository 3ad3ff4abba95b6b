"""Database URLs as operators write them."""

import pytest
from sqlalchemy import make_url

from token_pipelines.database import PSYCOPG, parse, parse_postgres


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgres+psycopg", "postgresql+psycopg"])
def test_postgres_may_be_called_so(scheme: str) -> None:
    """As Heroku and many of its kind write it."""
    url = f"{scheme}://me:pass@db.example.org:5433/ops?sslmode=require"
    ours = make_url("postgresql://me:pass@db.example.org:5433/ops?sslmode=require")
    assert parse(url, "source.url").set(drivername="postgresql") == ours
    assert parse(url, "source.url").get_backend_name() == "postgresql"
    assert parse_postgres(url, "ledger.url", PSYCOPG) == ours.set(drivername=PSYCOPG)
