"""Connections through SQLAlchemy, to read and for on_sent; without a pool, so that no session leaks its settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Connection, Engine, NullPool, create_engine
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from token_pipelines.database import DatabaseUrl, odd_option
from token_pipelines.errors import ConfigError
from token_pipelines.source.databases.database import Database, UnwantedOptionError
from token_pipelines.source.session import Session

_ODD_OPTIONS: Final = (TypeError, ValueError, AttributeError, LookupError, OSError)
"""What drivers raise, besides errors of their own, for what the URL's query hands to them: a word they do not know, a
number that is none, a character set or a file that does not exist."""


def make_engine(url: DatabaseUrl, database: Database, session: Session) -> Engine:
    """An engine for the URL. Opens nothing.

    Raises:
        ConfigError: if the driver is not installed, or is an asynchronous one, or does not take an option.
    """
    try:
        arguments = database.connect_arguments(url.parsed, session)
        engine = create_engine(url.parsed, poolclass=NullPool, hide_parameters=True, connect_args=arguments)
    except (ModuleNotFoundError, NoSuchModuleError):
        package = database.driver_package
        msg = f"{url.key} is a {url.parsed.drivername} database, whose driver is not installed; install {package}."
        raise ConfigError(msg) from None
    except UnwantedOptionError as error:
        msg = f"{url.key} {error}."
        raise ConfigError(msg) from None
    except (ArgumentError, *_ODD_OPTIONS):
        raise ConfigError(odd_option(url)) from None
    if engine.dialect.is_async:
        msg = f"{url.key} names the asynchronous driver {url.parsed.get_driver_name()}; name a synchronous one."
        raise ConfigError(msg)
    return engine


@contextmanager
def connected(engine: Engine, url: DatabaseUrl) -> Iterator[Connection]:
    """A connection for the block; errors of the database's own pass through.

    Raises:
        ConfigError: if the driver does not take an option of the URL.
    """
    try:
        connection = engine.connect()
    except _ODD_OPTIONS:
        raise ConfigError(odd_option(url)) from None
    with connection:
        yield connection
