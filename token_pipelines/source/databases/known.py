"""The table of databases."""

from typing import Final

from token_pipelines.source.databases.database import Database
from token_pipelines.source.databases.generic import GENERIC
from token_pipelines.source.databases.mysql import MYSQL
from token_pipelines.source.databases.postgres import POSTGRES
from token_pipelines.source.databases.sqlite import SQLITE

DATABASES: Final[tuple[Database, ...]] = (POSTGRES, MYSQL, SQLITE)
"""The kinds that are known and tested; any other dialect of SQLAlchemy is GENERIC."""

_BY_BACKEND: Final = {backend: database for database in DATABASES for backend in database.backends}


def database_of(backend: str) -> Database:
    """The kind of database of what SQLAlchemy calls a backend: the part of a URL before the + or the colon."""
    return _BY_BACKEND.get(backend, GENERIC)
