"""What a query must return, and what its text must not hold."""

from pathlib import Path

import pytest
from support.pipeline import DAY, NOW, Registry
from support.source import COLUMNS, OpenSource, refusal, select, select_without, snapshot

from token_pipelines.errors import ConfigError, SourceContractError, SourceError

# What a query must return


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (
            select(expires_at="expired_at::date"),
            (
                "The source query's expires_at is a DATE; say in SQL at which instant of that day it is meant, for"
                " example (expires_at::timestamp AT TIME ZONE 'UTC')."
            ),
        ),
        (
            select(last_used_at="now()::date"),
            (
                "The source query's last_used_at is a DATE; say in SQL at which instant of that day it is meant, for"
                " example (last_used_at::timestamp AT TIME ZONE 'UTC')."
            ),
        ),
        (
            select(created_at="extract(epoch FROM created_at)::bigint"),
            (
                "The source query's created_at is int64, a number and not an instant; if it counts seconds since 1970,"
                " write to_timestamp(created_at); divide milliseconds by 1000."
            ),
        ),
        (
            select(expires_at="expired_at::text"),
            (
                "The source query's expires_at is string, not an instant; convert it in SQL, for example"
                " (expires_at::timestamptz)."
            ),
        ),
        (
            select(email_verified="1"),
            "The source query's email_verified is int32, not a boolean; compare or cast it in SQL.",
        ),
        (select(muted="'no'::text"), "The source query's muted is string, not a boolean; compare or cast it in SQL."),
        (select(email="7"), "The source query's email is int32, not text; cast it to text in SQL."),
        (
            select(locale="ARRAY['de']"),
            "The source query's locale is list<item: string>, not text; cast it to text in SQL.",
        ),
        (select().replace("SELECT", "SELECT 1 AS token_id,"), "The source query returns token_id twice; keep one."),
        *(
            (
                select_without(name),
                f"The source query does not return {name}; add it to the SELECT (docs/sources tells what it means).",
            )
            for name in COLUMNS
        ),
    ],
)
def test_column_that_is_not_as_agreed_is_named(registry: Registry, source: OpenSource, query: str, said: str) -> None:
    """Even before there are any rows: the columns are known from the statement."""
    assert registry.execute("SELECT 1 FROM api_tokens") == []
    assert refusal(source(query), SourceContractError) == said


@pytest.mark.parametrize(
    ("column", "sample"),
    [
        ("expires_at", "(token_id 1)"),
        ("created_at", "(token_id 1)"),
        ("recipient_id", "(token_id 1)"),
        ("token_id", "(recipient_id 1)"),
    ],
)
def test_null_that_must_not_be_is_named_with_a_sample(
    registry: Registry, source: OpenSource, column: str, sample: str
) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY)
    null = "NULL::timestamptz" if column.endswith("_at") else "NULL::int"
    said = f"The source query returns a null {column} {sample}; exclude or fill such rows in SQL."
    assert refusal(source(select(**{column: null})), SourceError) == said


def test_address_for_an_id_is_refused_and_not_repeated(registry: Registry, source: OpenSource) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY)
    said = refusal(source(select(recipient_id="'ada@example.org'::text")), SourceError)
    assert said == (
        "The source query's recipient_id holds an @ (token_id 1); an address must not be stored: return the person's"
        " opaque id instead."
    )


def test_join_that_multiplies_rows_is_named_with_a_sample(registry: Registry, source: OpenSource) -> None:
    ada = registry.user("ada", email="ada@example.org")
    registry.token(ada, expires_at=NOW + DAY)
    twice = registry.token(ada, expires_at=NOW + 2 * DAY)
    query = select(tables=f"api_tokens JOIN generate_series(1, 2) AS g ON g = 1 OR id = {twice}")
    assert refusal(source(query), SourceError) == (
        f"The source query returns a token and recipient more than once (token_id {twice}); a join multiplies its"
        " rows: aggregate, or join on a unique column."
    )


def test_two_recipients_of_one_token_are_no_duplicate(registry: Registry, source: OpenSource) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY)
    found = snapshot(source(select(tables="api_tokens CROSS JOIN generate_series(7, 8) AS g", recipient_id="g")))
    assert sorted(zip(found["token_id"], found["recipient_id"], strict=True)) == [("1", "7"), ("1", "8")]


def test_optional_columns_have_their_meaning_when_missing_and_when_null(registry: Registry, source: OpenSource) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY)
    missing = snapshot(source(select()))
    nulls = snapshot(source(select(email_verified="NULL::bool", revoked="NULL::bool", muted="NULL::bool")))
    flags = ["email_verified", "revoked", "muted"]
    assert missing[flags].to_numpy().tolist() == [[True, False, False]]
    assert nulls[flags].to_numpy().tolist() == [[False, False, False]]


# The text of a query


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (
            select().replace("expired_at >= :expires_after AND ", ""),
            (
                "tokens.sql does not use :expires_after; filter with expires_at >= :expires_after AND expires_at <"
                " :expires_before."
            ),
        ),
        (
            select().replace("expired_at < :expires_before", "true -- :expires_before"),
            (
                "tokens.sql does not use :expires_before; filter with expires_at >= :expires_after AND expires_at <"
                " :expires_before."
            ),
        ),
        *(
            (
                f"{select()} {limit}",
                "tokens.sql limits its rows, so that tokens would be left out unnoticed; remove LIMIT or FETCH FIRST.",
            )
            for limit in ("LIMIT 10", "limit :expires_after", "FETCH FIRST 10 ROWS ONLY", "ORDER BY 1 LIMIT\n5")
        ),
    ],
)
def test_query_that_would_lose_tokens_is_refused_when_loaded(source: OpenSource, query: str, said: str) -> None:
    with pytest.raises(SourceContractError) as caught:
        source(query)
    assert str(caught.value).endswith(said)


def test_limit_in_a_comment_or_a_name_is_none(registry: Registry, source: OpenSource) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY, name="limit 5")
    query = f"-- no LIMIT 10 here\n{select(scopes='name')} /* LIMIT 10 */ ;\n"
    assert len(snapshot(source(query))) == 1


def test_query_may_end_in_a_comment_and_hold_colons_and_percents(registry: Registry, source: OpenSource) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY)
    odd = select(condition="name NOT LIKE '%%%s%'", token_name=r"'100%% \:x 10\:30 %(y)s'::text", scopes="'10%'::text")
    found = source(f"{odd} -- the end: 100%").resolve(["1"])
    assert found[["token_name", "scopes"]].to_numpy().tolist() == [["100%% :x 10:30 %(y)s", ("10%",)]]


def test_unknown_bind_is_refused(source: OpenSource) -> None:
    with pytest.raises(SourceContractError) as caught:
        source(select(condition="user_id = :user"))
    said = "tokens.sql asks for :user; the only binds are :expires_after and :expires_before (write \\: for a colon)."
    assert str(caught.value).endswith(said)


def test_unknown_preset_and_missing_file_are_refused(source: OpenSource, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"source.query: 'npm' is not a preset; take one of .*crates_io.*, or give"):
        source("npm")
    with pytest.raises(ConfigError) as caught:
        source("missing.sql")
    assert str(caught.value) == (
        f"source.query: {tmp_path / 'missing.sql'} cannot be read (FileNotFoundError); check the path and its"
        " permissions."
    )


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (select(token_name="nam"), 'column "nam" does not exist; fix source.query.'),
        (select(tables="api_tokns"), 'relation "api_tokns" does not exist; fix source.query.'),
        (f"{select()} AND", "syntax error at end of input; fix source.query."),
    ],
)
def test_query_that_the_database_refuses_is_blamed_in_its_words(source: OpenSource, query: str, said: str) -> None:
    found = refusal(source(query), SourceContractError)
    assert found.startswith("The source query is not accepted by the database: ")
    assert said.removesuffix("; fix source.query.").split(" at ")[0] in found
    assert found.endswith("; fix source.query.")
