"""Variables of libpq, which are stronger than what a URL asks for, and limits on connections."""

import os
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import DBAPIError

from token_pipelines.config import Source as SourceConfig
from token_pipelines.database import LIBPQ_SETTINGS, PSYCOPG, PSYCOPG2, DatabaseUrl, explain
from token_pipelines.ledger.ledger import Ledger
from token_pipelines.source.databases.postgres import POSTGRES


@pytest.fixture
def odd_variables(database_url: str) -> Iterator[None]:  # noqa: ARG001 -- the database is dropped without them
    """Variables of an operator's shell; what the product sets instead is forgotten after the test."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"PGCLIENTENCODING": "nonsense", "PGTZ": "Asia/Tokyo", "PGDATESTYLE": "German"}.items():
            assert name in LIBPQ_SETTINGS
            patch.setenv(name, value)
        yield


SHOWN = "SELECT current_setting('TimeZone'), current_setting('client_encoding')"


@pytest.mark.usefixtures("odd_variables")
def test_ledger_is_not_changed_by_variables(database_url: str) -> None:
    url = DatabaseUrl.read_postgres(database_url, "ledger.url", PSYCOPG)
    with closing(Ledger(url)) as ledger, ledger.engine.connect() as connection:
        assert connection.exec_driver_sql(SHOWN).one() == ("UTC", "UTF8")


@pytest.mark.usefixtures("odd_variables")
def test_source_is_not_changed_by_variables(database_url: str) -> None:
    url = DatabaseUrl.read_postgres(database_url, "source.url", "postgresql")
    config = SourceConfig.model_validate({"url": database_url, "query": "crates_io"})
    reader = POSTGRES.open_reader(url, config)
    with reader.connection() as connection, closing(connection.cursor()) as cursor:  # type: ignore[attr-defined]
        cursor.execute(SHOWN)
        assert cursor.fetchone() == ("UTC", "UTF8")


@pytest.mark.usefixtures("odd_variables")
def test_storage_of_dagster_is_not_changed_by_variables(database_url: str) -> None:
    url = DatabaseUrl.read_postgres(database_url, "DAGSTER_POSTGRES_URL", PSYCOPG2)
    with create_engine(url.parsed).connect() as connection:
        assert connection.exec_driver_sql("SHOW client_encoding").scalar() == "UTF8"
        assert connection.exec_driver_sql("SHOW TimeZone").scalar() != "Asia/Tokyo"
    connection.engine.dispose()


def test_search_path_without_a_schema_is_named(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c search_path=nowhere")
    url = DatabaseUrl.read_postgres(database_url, "DAGSTER_POSTGRES_URL", PSYCOPG2)
    with create_engine(url.parsed).connect() as connection, pytest.raises(DBAPIError) as caught:
        connection.exec_driver_sql("CREATE TABLE here (x int)")
    connection.engine.dispose()
    assert caught.value.orig is not None
    assert explain(caught.value.orig, url).endswith(
        "has no schema in which tables can be made; check search_path: in PGOPTIONS, in the URL's options, or set for"
        " the role or the database."
    )


@pytest.mark.parametrize(
    ("limited", "said"),
    [
        ("ALTER ROLE {} CONNECTION LIMIT 0", "allows this user no more connections; raise the limit with ALTER ROLE"),
        ("ALTER DATABASE {} CONNECTION LIMIT 0", "allows no more connections; raise the limit with ALTER DATABASE"),
        ("ALTER ROLE {} NOLOGIN", "does not let the user log in; allow it: ALTER ROLE … LOGIN."),
    ],
)
def test_limit_of_connections_is_not_taken_for_an_unknown_user(database_url: str, limited: str, said: str) -> None:
    url = make_url(database_url)
    role = f"limited_{os.urandom(4).hex()}"
    target = url.database if "DATABASE" in limited else role
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        connection.execute(sql.SQL(limited).format(sql.Identifier(str(target))))
        as_role = url.set(username=role).render_as_string(hide_password=False)
        with pytest.raises(psycopg.OperationalError) as caught:
            psycopg.connect(as_role)
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
    assert f" {said}" in explain(caught.value, DatabaseUrl(url, "ledger.url"))
