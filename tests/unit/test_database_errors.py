"""What a database's error means: by its SQLSTATE or number in any language, by its English text last."""

import sqlite3

import psycopg
import pytest
from adbc_driver_manager import OperationalError as AdbcError

from token_pipelines.database import DatabaseUrl, explain
from token_pipelines.errors import ConfigError, SourceContractError, SourceError
from token_pipelines.source.databases.database import Database
from token_pipelines.source.databases.generic import GENERIC
from token_pipelines.source.databases.known import DATABASES, database_of
from token_pipelines.source.databases.mysql import MYSQL
from token_pipelines.source.databases.postgres import POSTGRES
from token_pipelines.source.databases.sqlite import SQLITE

URL = DatabaseUrl.read("postgresql://me:hush@db.example.org/ops", "source.url")
PLACE = "The database of source.url (me@db.example.org/ops) "


def explained(database: Database, error: BaseException) -> ConfigError | SourceError:
    found = database.explained(error, URL)
    assert "hush" not in str(found)
    assert str(found).endswith(".")
    return found


def adbc(text: str, sqlstate: str | None) -> AdbcError:
    return AdbcError(text, status_code=1, vendor_code=None, sqlstate=sqlstate)


GERMAN = [
    ("57014", "storniere Anfrage wegen Zeitüberschreitung der Anfrage", "took too long"),
    ("55P03", "storniere Anfrage wegen Zeitüberschreitung einer Sperre", "waited too long for a lock"),
    ("40001", "storniere Anfrage wegen Konflikt mit der Wiederherstellung", "is a replica that broke off the read"),
    ("57P01", "breche Verbindung ab aufgrund von Anweisung des Administrators", "was lost while we spoke to it"),
    ("57P03", "das Datenbanksystem startet", "was lost while we spoke to it"),
    ("42501", "keine Berechtigung für Tabelle tokens", "refused the access"),
    ("53300", "tut mir leid, schon zu viele Verbindungen", "has no connection left"),
    (
        "53100",
        "konnte Datei »x« nicht erweitern: Auf dem Gerät ist kein Speicherplatz mehr verfügbar",
        "has no room left",
    ),
    ("40P01", "Verklemmung (Deadlock) entdeckt", "broke off a deadlock"),
    ("28P01", "Passwort-Authentifizierung für Benutzer »me« fehlgeschlagen", "refused the login"),
    ("3D000", "Datenbank »ops« existiert nicht", "has no such database"),
]


@pytest.mark.parametrize(("sqlstate", "text", "says"), GERMAN)
def test_postgres_that_speaks_german_is_understood_by_its_sqlstate(sqlstate: str, text: str, says: str) -> None:
    fetched = adbc(
        f"IO: [libpq] Execution error [PGRES_FATAL_ERROR]: FEHLER:  {text}\n. SQLSTATE: {sqlstate}", sqlstate
    )
    assert str(explained(POSTGRES, fetched)).startswith(f"{PLACE}{says}")
    executed = psycopg.errors.lookup(sqlstate)(text)
    assert explain(executed, URL).startswith(f"{PLACE}{says}")


@pytest.mark.parametrize("sqlstate", ["40001", "57P01", "57P02", "57P03", "08006", "08000"])
def test_postgres_error_that_may_pass_is_known_by_its_sqlstate(sqlstate: str) -> None:
    found = explained(POSTGRES, adbc("FEHLER:  irgendetwas", sqlstate))
    assert isinstance(found, SourceError)
    assert found.may_pass


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("canceling statement due to statement timeout", "took too long"),
        ("canceling statement due to user request", "cancelled the statement on request"),
    ],
)
def test_english_text_decides_where_one_sqlstate_means_several_things(text: str, says: str) -> None:
    assert str(explained(POSTGRES, adbc(f"ERROR:  {text}", "57014"))).startswith(f"{PLACE}{says}")


@pytest.mark.parametrize(
    ("sqlstate", "text", "kind", "said"),
    [
        (
            "42703",
            "NOT_FOUND: Failed to prepare query: FEHLER:  Spalte »nam« existiert nicht\nLINE 1: select nam hush",
            SourceContractError,
            "The source query is not accepted by the database: Spalte »nam« existiert nicht; fix source.query.",
        ),
        (
            "42883",
            "Failed to prepare query: FEHLER:  Operator existiert nicht: bigint >= timestamp with time zone\n",
            SourceContractError,
            (
                "The source query is not accepted by the database: Operator existiert nicht: bigint >= timestamp with"
                " time zone; make an instant of the column, with to_timestamp(…) of seconds since 1970, with CAST(… AS"
                " timestamptz) of text, in the WHERE of source.query as in its SELECT."
            ),
        ),
        (
            "22P02",
            "[libpq] Execution error [PGRES_FATAL_ERROR]: FEHLER:  ungültige Eingabesyntax für Typ integer: »hush«\n",
            SourceError,
            (
                "The source query failed on a row's value (SQLSTATE 22P02, InvalidTextRepresentation); leave such rows"
                " out in SQL, or fix the cast or the calculation in source.query."
            ),
        ),
        (
            "P0001",
            "[libpq] Execution error [PGRES_FATAL_ERROR]: FEHLER:  no: hush\n",
            SourceError,
            (
                "The source query failed in the database, whose words may hold a value (SQLSTATE P0001,"
                " RaiseException); look into its log, or run the query by hand, and fix it."
            ),
        ),
    ],
)
def test_postgres_that_speaks_german_blames_the_statement_or_the_value(
    sqlstate: str, text: str, kind: type[Exception], said: str
) -> None:
    found = explained(POSTGRES, adbc(text, sqlstate))
    assert type(found) is kind
    assert str(found) == said


TO_SERVER = 'connection failed: connection to server at "db.example.org", port 5432 failed: '


@pytest.mark.parametrize(
    ("said", "says", "unreachable"),
    [
        ("FATAL:  Rolle »me« existiert nicht", "refused the connection; look into its log for the reason", True),
        ("ВАЖНО:  роль me не существует", "refused the connection; look into its log for the reason", True),
        ('FATAL:  role "me" does not exist', "does not know the user", False),
        ('FATAL:  permission denied for database "ops"', "refused the access", False),
        (
            "FATAL:  no more connections allowed (max_client_conn)",
            "is behind a pooler that takes no more clients",
            False,
        ),
        ("FATAL:  bouncer config error", "is not in the list of its pooler", False),
        ("FATAL:  no such database: ops", "is not in the list of its pooler", False),
        ("FATAL:  server login has been failing, try again later", "is behind a pooler that cannot log in to it", True),
        ("FATAL:  pgbouncer cannot connect to server", "is behind a pooler that cannot log in to it", True),
        ("FATAL:  query_wait_timeout", "has no connection left in its pooler", False),
        ('FATAL:  invalid value for parameter "TimeZone": "x"', "refused a setting of this session", False),
        ('FATAL:  database "ops" does not exist', "has no such database", False),
        ("FATAL:  sorry, too many clients already", "has no connection left", False),
        ("Connection refused\n\tIs the server running on that host?", "cannot be reached", True),
        ("timeout expired", "did not answer in time", True),
    ],
)
def test_connection_that_was_never_made_has_no_sqlstate(said: str, says: str, *, unreachable: bool) -> None:
    """A server that answers in another language is not said to be down."""
    for error in (psycopg.OperationalError(TO_SERVER + said), adbc(f"IO: [libpq] {TO_SERVER}{said}\n", None)):
        found = explained(POSTGRES, error)
        assert str(found).startswith(f"{PLACE}{says}")
        assert isinstance(found, SourceError)
        assert found.unreachable is unreachable


@pytest.mark.parametrize(
    ("number", "says", "may_pass"),
    [
        (1045, "refused the login", False),
        (1044, "refused the access", False),
        (1142, "refused the access", False),
        (1049, "has no such database", False),
        (1040, "has no connection left", False),
        (1205, "waited too long for a lock", False),
        (1213, "broke off a deadlock", False),
        (1969, "took too long", False),
        (3024, "took too long", False),
        (2003, "cannot be reached", False),
        (2006, "was lost while we spoke to it", True),
        (2013, "was lost while we spoke to it", True),
        (1927, "was lost while we spoke to it", True),
        (1053, "was lost while we spoke to it", True),
    ],
)
def test_mysql_is_understood_by_its_number_in_any_language(number: int, says: str, *, may_pass: bool) -> None:
    found = explained(MYSQL, Exception(number, "etwas auf Deutsch"))
    assert str(found).startswith(f"{PLACE}{says}")
    assert isinstance(found, SourceError)
    assert found.may_pass is may_pass


def test_syntax_error_of_mysql_repeats_nothing_of_the_statement_in_any_language() -> None:
    german = "Fehler in der SQL-Syntax. Bitte im Handbuch nachschlagen bei 'hush WHERE x = 'hush'' in Zeile 2"
    assert str(explained(MYSQL, Exception(1064, german))) == (
        "The source query is not accepted by the database: Fehler in der SQL-Syntax. Bitte im Handbuch nachschlagen bei"
        " … in Zeile 2; fix source.query."
    )
    without_quotes = Exception(1064, "«hush» …")
    assert "accepted by the database: error 1064; " in str(explained(MYSQL, without_quotes))


def test_silence_of_mysql_is_no_lost_connection() -> None:
    error = Exception(2013, "Lost connection to MySQL server during query (timed out)")
    found = explained(MYSQL, error)
    assert str(found).startswith(f"{PLACE}did not answer in time; ")
    assert isinstance(found, SourceError)
    assert found.may_pass


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("SQLITE_BUSY_SNAPSHOT", "waited too long for a lock"),
        ("SQLITE_CANTOPEN_ISDIR", "cannot be opened"),
        ("SQLITE_IOERR_READ", "cannot be read as a file"),
        ("SQLITE_CORRUPT_VTAB", "is damaged"),
        ("SQLITE_FULL", "has no room left on its disk"),
        ("SQLITE_NOTADB", "is no SQLite file, or encrypted"),
    ],
)
def test_sqlite_is_understood_by_the_name_of_its_error(name: str, says: str) -> None:
    error = sqlite3.OperationalError("hush")
    error.sqlite_errorname = name
    assert str(explained(SQLITE, error)).startswith(f"{PLACE}{says}")


class OdbcError(Exception):
    """As pyodbc raises it: the SQLSTATE comes first."""


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("08S01", f"{PLACE}was lost while we spoke to it; run again; nothing is sent twice."),
        ("28000", f"{PLACE}refused the login; check the user, the password and the host from which it may connect."),
        ("42S02", "The source query is not accepted by the database: SQLSTATE 42S02; fix source.query."),
        ("HY000", f"{PLACE}answered with an error that we do not know (SQLSTATE HY000); look into its log."),
    ],
)
def test_database_that_nobody_has_tested_is_understood_by_standard_sqlstates(state: str, said: str) -> None:
    assert str(explained(GENERIC, OdbcError(state, "[Vendor][Driver]hush"))) == said


def test_every_backend_is_of_one_database() -> None:
    backends = [backend for database in DATABASES for backend in database.backends]
    assert len(set(backends)) == len(backends)
    assert database_of("mariadb") is database_of("mysql") is MYSQL
    assert database_of("oracle") is GENERIC
