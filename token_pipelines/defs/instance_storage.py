"""Dagster's own storage, as dagster.yaml names it: Dagster's class for Postgres, its connections set up as ours are.

The daemon and the webserver open it before any other code of ours runs. Without it, libpq's variables would decide what
their connections are like, and an error would be a traceback.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import DagsterPostgresException, get_token_provider_from_config, pg_url_from_config
from sqlalchemy.exc import DBAPIError

from token_pipelines.database import PSYCOPG2, DatabaseUrl, explain
from token_pipelines.errors import LedgerError

STORAGE_VARIABLE: Final = "DAGSTER_POSTGRES_URL"


class InstanceStorage(DagsterPostgresStorage):
    """Dagster's storage in Postgres. The URL may name any driver or none; Dagster needs psycopg2."""

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> "InstanceStorage":  # noqa: ANN401 -- as Dagster gives it
        """Open the storage that the config describes, and make its tables where there are none.

        Raises:
            ConfigError: if the URL is not one of a Postgres database.
            LedgerError: if the database cannot be reached, or refuses.
        """
        url = DatabaseUrl.read_postgres(pg_url_from_config(config_value), STORAGE_VARIABLE, PSYCOPG2)
        with explained(url):
            return cls(
                postgres_url=url.parsed.render_as_string(hide_password=False),
                should_autocreate_tables=config_value.get("should_autocreate_tables", True),
                inst_data=inst_data,
                token_provider=get_token_provider_from_config(config_value),
            )


@contextmanager
def explained(url: DatabaseUrl) -> Iterator[None]:
    """Within this block, an error of Dagster's storage becomes one sentence.

    Raises:
        LedgerError: instead of that error.
    """
    try:
        yield
    except (DBAPIError, DagsterPostgresException) as error:
        cause = error.__cause__ if isinstance(error, DagsterPostgresException) else error
        raise LedgerError(explain(getattr(cause, "orig", None) or error, url)) from None
