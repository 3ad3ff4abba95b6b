"""Expiries in SQLite of which the query's functions make null, or that no comparison holds: each is refused by name."""

# ruff: noqa: RUF001, S608 -- digits of other scripts, and a test's own queries

from datetime import UTC, datetime, timedelta

import pytest
from support.databases import Database, OpenDatabase

from token_pipelines.errors import TokenPipelinesError
from token_pipelines.policy import Window
from token_pipelines.source.source import Source

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
WINDOW = Window(expires_after=NOW - timedelta(days=3), expires_before=NOW + timedelta(days=30))
GOOD = "'2026-11-22 09:00:00'"

ODD = {
    "blank": "' 2026-11-22 09:00:00'",
    "line break": "char(10) || '2026-11-22 09:00:00'",
    "tab": "char(9) || '2026-11-22 09:00:00'",
    "no-break space": "char(160) || '2026-11-22 09:00:00'",
    "byte order mark": "char(65279) || '2026-11-22 09:00:00'",
    "NUL": "char(0) || '2026-11-22 09:00:00'",
    "double quote": "'\"2026-11-22 09:00:00\"'",
    "quote": "'''2026-11-22 09:00:00'''",
    "bracket": "'[2026-11-22 09:00:00]'",
    "parenthesis": "'(2026-11-22 09:00:00)'",
    "plus": "'+2026-11-22 09:00:00'",
    "minus": "'-2026-11-22 09:00:00'",
    "five digits": "'+002026-11-22 09:00:00'",
    "Arabic digits": "'٢٠٢٦-١١-٢٢ ٠٩:٠٠:٠٠'",
    "full-width digits": "'２０２６-11-22 09:00:00'",
    "other hyphens": "'2026‐11‐22 09:00:00'",
    "zone's name behind": "'2026-11-22 09:00:00 UTC'",
    "anything behind": "'2026-11-22 09:00:00 foo'",
    "one digit": "'2026-11-22 9:00:00'",
    "no such hour": "'2026-11-22 25:00:00'",
    "short year": "'22 Nov 26'",
    "seconds": "1795338000",
    "seconds as text": "'1795338000'",
    "power of ten": "'1.795e9'",
    "Julian day": "2461367.875",
    "Julian day as text": "'2461367.875'",
    "huge": "1e300",
    "infinite": "9e999",
    "blob": "x'ff32303236'",
}
HOW = {
    "bare": "x >= :expires_after AND x < :expires_before",
    "between": "x BETWEEN :expires_after AND :expires_before",
    "replace": "replace(x, 'T', ' ') >= :expires_after AND replace(x, 'T', ' ') < :expires_before",
    "bind": "x >= datetime(:expires_after) AND x < datetime(:expires_before)",
    "both": "datetime(x) >= datetime(:expires_after) AND datetime(x) < datetime(:expires_before)",
    "julian": "julianday(x) >= julianday(:expires_after) AND julianday(x) < julianday(:expires_before)",
    "seconds": "strftime('%s', x) >= strftime('%s', :expires_after)"
    " AND strftime('%s', x) < strftime('%s', :expires_before)",
}


def make(database: Database, how: str, *values: str, expires_at: str = "x") -> Source:
    database.execute("DROP TABLE IF EXISTS tokens", "CREATE TABLE tokens (id integer PRIMARY KEY, x)")
    for number, value in enumerate(values, start=1):
        database.execute(f"INSERT INTO tokens VALUES ({number}, {value})")
    select = f"""
        SELECT id AS token_id, 7 AS recipient_id, '2026-01-01T00:00:00Z' AS created_at, {expires_at} AS expires_at,
            'n' AS token_name, 'Ada' AS recipient_name, 'ada@example.org' AS email
        FROM tokens WHERE {HOW.get(how, how)}
    """
    return database.source(select, timezone="UTC")


def read(source: Source) -> list[str]:
    """The ids of the tokens that everybody's day goes on with."""
    return [token_id for frame in source.snapshot(WINDOW) for token_id in frame["token_id"].tolist()]


@pytest.mark.parametrize("how", HOW)
def test_odd_expiry_is_never_passed_over(open_database: OpenDatabase, how: str) -> None:
    database = open_database("sqlite")
    silent, said = [], []
    for name, value in ODD.items():
        try:
            found = read(make(database, how, GOOD, value, GOOD))
        except TokenPipelinesError as refused:
            said.append(str(refused))
        else:
            silent += [] if "2" in found else [name]
    assert silent == []
    assert [one for one in said if "expires_at" not in one or "2026-11" in one] == []


@pytest.mark.parametrize(
    "value", ["''", "'never'", "0", "-1", "'0'", "NULL", "'0000-00-00 00:00:00'", "'9999'", "'n/a'"]
)
@pytest.mark.parametrize("how", HOW)
def test_word_for_never_is_left_out_as_the_query_says(open_database: OpenDatabase, how: str, value: str) -> None:
    assert read(make(open_database("sqlite"), how, value, GOOD, value)) == ["2"]


def test_value_that_another_branch_of_the_query_reads_is_not_refused(open_database: OpenDatabase) -> None:
    """datetime() makes null of the seconds, as the query expects."""
    expiry = "coalesce(datetime(x), datetime(x, 'unixepoch')) || 'Z'"
    how = f"{expiry} >= :expires_after AND {expiry} < :expires_before"
    assert read(make(open_database("sqlite"), how, GOOD, "1795338000", expires_at=expiry)) == ["1", "2"]


def test_offset_that_sqlite_does_not_read_is_refused(open_database: OpenDatabase) -> None:
    """We would read +0100; SQLite makes null of it, and leaves the row out."""
    source = make(open_database("sqlite"), "both", GOOD, "'2026-11-22 09:00:00+0100'")
    with pytest.raises(TokenPipelinesError, match=r"does not find a token by the expires_at .* \(token_id 2\)"):
        read(source)
