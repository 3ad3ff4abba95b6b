"""What begins a session with the operator's Postgres. It is set after connecting, and holds until the transaction ends.

Nothing is asked for at start-up: libpq's variables would be stronger, a pooler refuses it or drops it in silence, and
behind a pooler the next transaction may be on another session of the server.
"""

from typing import Final

from token_pipelines.database import set_settings
from token_pipelines.source.session import Session

SETTINGS: Final = {
    "TimeZone": "UTC",
    # How instants are shown as text, for ids that are cast. How the operator's SQL reads 01/02/2026 stays as it is set.
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
}


def statements(session: Session) -> list[str]:
    """The statements, to be run first in each transaction."""
    limits = {
        "statement_timeout": str(int(session.statement_timeout.total_seconds() * 1000)),
        "lock_timeout": str(int(session.lock_timeout.total_seconds() * 1000)),
    }
    # A replica refuses serializable transactions, which the role or the database may be set to.
    to_read = ["SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY"] if session.read_only else []
    return [*to_read, set_settings(SETTINGS | limits, local=True)]
