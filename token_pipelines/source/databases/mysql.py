"""MariaDB and MySQL, by PyMySQL where the URL names no other driver."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError

from token_pipelines import database_errors as meanings
from token_pipelines.database_errors import Cause, ErrorTable
from token_pipelines.source.contract import NEVER_NULL_INSTANTS
from token_pipelines.source.databases.database import UnwantedOptionError
from token_pipelines.source.databases.generic import Generic
from token_pipelines.source.dialect import TEXT_AT_MOST, Dialect
from token_pipelines.source.refusals import Blame, Refusal
from token_pipelines.source.session import CONNECT_TIMEOUT_S, Session

CHARSET: Final = "utf8mb4"

_NO_LIMIT: Final = 2**64 - 1
"""The server's own default."""


# Types, by their numbers in the protocol


_UTC: Final = pa.timestamp("us", tz="UTC")
_TYPES: Final = {
    **dict.fromkeys((1, 2, 3, 8, 9, 13, 16), pa.int64()),
    **dict.fromkeys((4, 5), pa.float64()),
    7: _UTC,
    10: pa.date32(),
    12: pa.timestamp("us"),
}
"""A TIMESTAMP (7) is an instant and comes in the session's zone, which is UTC; a DATETIME (12) is what somebody wrote
down. Text and binary share their numbers: only values tell."""

_NO_INSTANTS: Final = {
    **dict.fromkeys((15, 247, 249, 250, 251, 252, 253, 254), pa.string()),
    **dict.fromkeys((0, 246), pa.decimal128(38, 6)),
}
"""Text or binary, and decimals."""

_INT64_MAX: Final = 2**63 - 1

ZERO_DATE: Final = -(2**60)
"""What 0000-00-00 is made, in µs since 1970: long before every date."""


# Replication


_REPLICA_STATUS: Final = ("SHOW REPLICA STATUS", "SHOW SLAVE STATUS")  # MySQL 8.0.22, MariaDB 10.5; and before
_BEHIND: Final = ("Seconds_Behind_Source", "Seconds_Behind_Master")
_SYNTAX_ERROR: Final = "1064"


# Errors, by their numbers


_STATEMENT: Final = {
    *(1051, 1052, 1054, 1055, 1056, 1060, 1064, 1066, 1109, 1111, 1140, 1146, 1221, 1222, 1241, 1242, 1247, 1248),
    *(1250, 1267, 1271, 1305, 1318, 1356, 1463, 1582, 1630, 1792, 4015, 4016, 4078),
}
"""Something is not known, not unique or not in its place. The messages name identifiers only."""

_VALUE: Final = {1264, 1265, 1292, 1365, 1366, 1406, 1411, 1525, 1690, 3140, 3141, 4037, 4038}
_NAMES: Final = {1142, 1143, 1205, 1290}
"""Rights and locks: what blames no statement and can be shown."""

_SERVERS: Final = (range(1000, 2000), range(3000, 6000))
"""The server's own errors; those of the 2000s are the client's."""

_QUOTED_QUERY: Final = re.compile(r"'.*'", re.DOTALL)
"""A syntax error repeats the rest of the statement, in every language in quotes."""


def code_of(error: BaseException) -> str:
    """The error's number, which every driver puts first; its SQLSTATE says less."""
    first = error.args[0] if error.args else None
    return str(first) if isinstance(first, int) and not isinstance(error, OSError) else ""


class MySql(Generic):
    """MariaDB and MySQL."""

    backends = ("mysql", "mariadb")
    driver_package = "token-pipelines[mysql]"
    dialect = Dialect(
        name="MariaDB or MySQL",
        from_epoch="from_unixtime({name}), with source.timezone: UTC",
        from_date="timestamp({name})",
        from_text="CAST({name} AS datetime(6))",
        without_extremes="nullif({name}, 0)",
        backslashes=True,
        shortened=f"left({{name}}, {TEXT_AT_MOST}) AS {{name}}",
        extremes={"a zero date as": (ZERO_DATE,)},
        widest=((-(2**62), 2**62), ("", "\U0010ffff")),
        readable="expires_at IS NOT NULL",
    )
    errors = ErrorTable(
        code_of=code_of,
        show=lambda code: f"error {code}",
        causes=(
            Cause(meaning=meanings.WRONG_LOGIN, codes=("1045", "1130", "1698")),
            Cause(meaning=meanings.DENIED, codes=("1044", "1142", "1143", "1227", "1345", "1370")),
            Cause(meaning=meanings.NO_DATABASE, codes=("1049",)),
            Cause(meaning=meanings.UNREACHABLE, codes=("2002", "2003")),
            Cause(meaning=meanings.NO_HOST, codes=("2003",), text=meanings.NO_HOST_TEXT),
            Cause(meaning=meanings.NO_HOST, codes=("2005",)),
            Cause(meaning=meanings.NO_CONNECTION_LEFT, codes=("1040", "1203", "1226")),
            Cause(meaning=meanings.READ_ONLY, codes=("1290", "1836")),
            Cause(meaning=meanings.FULL_DISK, codes=("1021", "1114")),
            Cause(meaning=meanings.DEADLOCK, codes=("1213",)),
            Cause(meaning=meanings.LOCKED, codes=("1205",)),
            Cause(meaning=meanings.TOO_LONG, codes=("1969", "3024")),
            Cause(meaning=meanings.CANCELLED, codes=("1317",)),
            Cause(
                meaning=meanings.LOST,
                codes=("0", "1053", "1152", "1158", "1159", "1160", "1161", "1927", "2006", "2013", "2055", "4031"),
                text=f"{meanings.LOST_TEXT}|packet sequence number wrong",
            ),
            Cause(
                meaning=replace(meanings.SILENT, may_pass=True, unreachable=False),
                codes=("2013",),
                text=meanings.SILENT_TEXT,
            ),
        ),
    )

    def engine_url(self, url: URL, *, read_only: bool) -> URL:  # noqa: ARG002 -- as Database says
        """See Database."""
        return url if "+" in url.drivername else url.set(drivername=f"{url.drivername}+pymysql")

    def connect_arguments(self, url: URL, session: Session) -> dict[str, Any]:
        """See Database."""
        is_pymysql = url.get_driver_name() == "pymysql"
        charset = url.query.get("charset", CHARSET)
        if charset != CHARSET:
            if is_pymysql:
                _refuse_unknown(charset)
            msg = f"asks for a charset, but text is read as {CHARSET} only; leave charset out of the URL"
            raise UnwantedOptionError(msg)
        if not is_pymysql:
            return {}
        return {
            "charset": CHARSET,
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": session.patience.total_seconds(),
            # The driver itself would write it in Latin-1, and fail where that has no such letter.
            **({} if url.password is None else {"password": url.password.encode()}),
        }

    def settings(self, connection: Connection, session: Session) -> list[str]:
        """See Database. The server's statement timeout is for reading: MySQL has none for other statements."""
        lock = max(1, round(session.lock_timeout.total_seconds()))
        limits = [
            "SET SESSION time_zone = '+00:00'",  # TIMESTAMP columns are shown in it
            f"SET SESSION sql_select_limit = {_NO_LIMIT}",  # with a lower one, tokens would be left out in silence
            f"SET SESSION lock_wait_timeout = {lock}",
            f"SET SESSION innodb_lock_wait_timeout = {lock}",
        ]
        if connection.dialect.driver == "pymysql":  # the server's init_connect may have said otherwise
            limits.append(f"SET NAMES {CHARSET}")
        if not session.read_only:
            return limits
        seconds = session.statement_timeout.total_seconds()
        is_mariadb = getattr(connection.dialect, "is_mariadb", False)
        limit = f"max_statement_time = {seconds}" if is_mariadb else f"max_execution_time = {round(seconds * 1000)}"
        return [*limits, f"SET SESSION {limit}", "SET SESSION TRANSACTION READ ONLY"]

    def interrupter(self, connection: Connection, engine: Engine) -> Callable[[], None]:
        """See Database."""
        session = connection.exec_driver_sql("SELECT connection_id()").scalar_one()

        def kill() -> None:
            with engine.connect() as other:
                other.exec_driver_sql(f"KILL QUERY {int(session)}")

        return kill

    def column_types(self, cursor: Any, *, has_rows: bool) -> list[pa.DataType | None]:  # noqa: ANN401 -- as Database says
        """See Database. Without rows, an instant that is never null is text where the driver says text.

        Another instant may be a null, which has any type.
        """
        return [
            _TYPES.get(kind) or (_NO_INSTANTS.get(kind) if not has_rows and name in NEVER_NULL_INSTANTS else None)
            for name, kind, *_ in cursor.description
        ]

    def array(self, name: str, kind: pa.DataType | None, values: Sequence[Any]) -> pa.Array:
        """See Database."""
        if kind is not None and pa.types.is_timestamp(kind):
            return _instants(kind, values)
        if kind is not None and pa.types.is_date(kind):
            return pa.array([None if isinstance(value, str) else value for value in values], kind)
        if kind == pa.int64():
            return _integers(values)
        return super().array(name, kind, values)

    def reaches_tables(self, plan: Sequence[str], token_ids: Collection[str]) -> bool | None:  # noqa: ARG002 -- as Database says
        """See Database."""
        return not any("<derived" in line for line in plan)

    def lag(self, connection: Connection) -> timedelta | None:
        """See Database."""
        status = replica_status(connection)
        if status is None:
            return None
        seconds = next((status[name] for name in _BEHIND if name in status), None)
        return timedelta.max if seconds is None else timedelta(seconds=int(seconds))

    def refusal(self, error: BaseException) -> Refusal | None:
        """See Database."""
        code = int(code_of(error) or 0)
        if code in _STATEMENT:
            said = str(error.args[-1])
            if str(code) == _SYNTAX_ERROR:
                words, quotes = _QUOTED_QUERY.subn("…", said)
                said = words if quotes else self.errors.shown_code(error)
            return Refusal(Blame.STATEMENT, " ".join(said.split()))
        shown = self.errors.shown_code(error)
        if code in _VALUE:
            return Refusal(Blame.VALUE, shown)
        unknown = self.errors.meaning(error) is None and any(code in codes for codes in _SERVERS)
        return Refusal(Blame.UNKNOWN, shown) if unknown else None

    def names_only(self, error: BaseException) -> bool:
        """See Database."""
        return int(code_of(error) or 0) in _NAMES


def _refuse_unknown(charset: object) -> None:
    """Raise a LookupError for a charset that the driver does not know. Some of its versions return None instead."""
    # The driver need not be installed.
    from pymysql.charset import charset_by_name  # type: ignore[import-untyped]  # noqa: PLC0415

    if charset_by_name(charset) is None:
        raise LookupError(charset)


def replica_status(connection: Connection) -> Mapping[str, Any] | None:
    """What the server says of its replication; None where it is no replica.

    Raises:
        DBAPIError: if it is not permitted to ask.
    """
    for question in _REPLICA_STATUS:
        try:
            status = connection.exec_driver_sql(question).mappings().first()
            return None if status is None else dict(status)
        except DBAPIError as error:
            if code_of(error.orig or error) != _SYNTAX_ERROR or question == _REPLICA_STATUS[-1]:
                raise
    return None


def _instants(kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    """0000-00-00 comes as text; it is kept apart from nulls, so that a message can name its row."""
    zero = [isinstance(value, str) for value in values]
    if not any(zero):
        return pa.array(values, kind)
    known = pa.array([None if isinstance(value, str) else value for value in values], kind)
    return pc.if_else(pa.array(zero), pa.scalar(ZERO_DATE, pa.int64()).cast(kind), known)


def _integers(values: Sequence[Any]) -> pa.Array:
    """BIT comes as bytes; the upper half of BIGINT UNSIGNED does not fit into an int64."""
    values = [int.from_bytes(value) if isinstance(value, bytes) else value for value in values]
    if any(isinstance(value, int) and value > _INT64_MAX for value in values):
        values = [None if value is None else Decimal(value) for value in values]
    return pa.array(values) if any(value is not None for value in values) else pa.array(values, pa.int64())


MYSQL: Final = MySql()
