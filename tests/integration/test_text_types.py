"""What counts as text in Postgres: arrays of its kinds of text are lists of scopes, citext is text."""

import pytest
from support.pipeline import DAY, NOW, Registry
from support.source import OpenSource

QUERY = """
SELECT CAST(id AS {id}) AS token_id, user_id AS recipient_id, created_at, expired_at AS expires_at,
    CAST('CI' AS {text}) AS token_name, CAST('Ada' AS {text}) AS recipient_name,
    CAST('Ada@example.org' AS {text}) AS email, CAST('de' AS {text}) AS locale, {scopes} AS scopes
FROM api_tokens WHERE expired_at >= :expires_after AND expired_at < :expires_before
"""

ARRAYS = {
    "{read,NULL,write}": ("read", "write"),
    "{NULL}": (),
    "{}": (),
    "{{read},{write}}": ("read", "write"),
}


@pytest.fixture
def token(registry: Registry) -> str:
    registry.execute("CREATE EXTENSION citext")
    registry.execute("CREATE TYPE scope AS ENUM ('read', 'write')")
    registry.execute("CREATE DOMAIN scopes AS text[]")
    return registry.token(registry.user("ada"), expires_at=NOW + DAY)


@pytest.mark.parametrize(
    "kind", ["text[]", "varchar[]", "varchar(9)[]", "char(5)[]", "name[]", "citext[]", "scope[]", "scopes"]
)
def test_array_of_text_is_a_list_of_scopes(source: OpenSource, token: str, kind: str) -> None:
    for array, scopes in ARRAYS.items():
        query = QUERY.format(id="text", text="text", scopes=f"CAST('{array}' AS {kind})")
        assert source(query).resolve([token])["scopes"].tolist() == [scopes]


def test_citext_is_text(source: OpenSource, token: str) -> None:
    query = QUERY.format(id="citext", text="citext", scopes="CAST('read write' AS citext)")
    [row] = source(query).resolve([token]).to_dict("records")
    names = ("token_id", "token_name", "recipient_name", "email", "locale", "scopes")
    assert [row[name] for name in names] == [token, "CI", "Ada", "Ada@example.org", "de", ("read", "write")]
