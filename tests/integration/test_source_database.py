"""A source's database in trouble: each trouble is one sentence, and no value is repeated."""

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url
from support.pipeline import DAY, NOW, Registry
from support.source import OpenSource, refusal, select

from token_pipelines.errors import SourceError


def test_database_that_does_not_exist_is_one_sentence(registry_url: str, source: OpenSource) -> None:
    url = make_url(registry_url).set(database="registri", password="hush-hush")
    said = refusal(source(url=url.render_as_string(hide_password=False)), SourceError)
    assert said == (
        f"The database of source.url (postgres@{url.query['host']}/registri) has no such database; check the name"
        " after the last / of the URL, or create the database."
    )


def test_user_that_does_not_exist_is_one_sentence(registry_url: str, source: OpenSource) -> None:
    url = make_url(registry_url).set(username="nobody-here", password="hush-hush")
    said = refusal(source(url=url.render_as_string(hide_password=False)), SourceError)
    assert "nobody-here@" in said
    assert said.endswith("does not know the user; check the user in the URL, or create the role.")
    assert "hush" not in said


def test_database_that_nobody_serves_is_one_sentence(source: OpenSource, closed_port: int) -> None:
    said = refusal(source(url=f"postgresql://reader:hush-hush@127.0.0.1:{closed_port}/registry"), SourceError)
    assert said == (
        f"The database of source.url (reader@127.0.0.1:{closed_port}/registry) cannot be reached; check that it runs"
        " and that this machine may connect."
    )


def test_host_that_is_not_known_is_one_sentence(source: OpenSource) -> None:
    said = refusal(source(url="postgresql://reader@nowhere.invalid/registry"), SourceError)
    assert said.startswith("The database of source.url (reader@nowhere.invalid/registry) has a host name that is not")


def test_password_that_is_refused_is_one_sentence_without_it(
    registry_url: str, source: OpenSource, password_only: str
) -> None:
    url = make_url(registry_url).set(username=password_only, password="wrong-hush-hush")
    said = refusal(source(url=url.render_as_string(hide_password=False)), SourceError)
    assert said.endswith(" refused the login; check the user and the password.")
    assert "hush" not in said
    no_password = make_url(registry_url).set(username=password_only)
    said = refusal(source(url=no_password.render_as_string(hide_password=False)), SourceError)
    assert said.endswith(" asks for a password; set the whole URL in the environment (TOKEN_PIPELINES__SOURCE__URL).")


@pytest.fixture
def password_only(registry: Registry) -> Iterator[str]:
    """A role of this server that must give a password."""
    role = f"careful_{os.getpid()}"
    [(file,)] = registry.execute("SHOW hba_file")
    before = Path(file).read_bytes()
    registry.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'right'")
    Path(file).write_bytes(f"local all {role} scram-sha-256\n".encode() + before)
    registry.execute("SELECT pg_reload_conf()")
    yield role
    Path(file).write_bytes(before)
    registry.execute("SELECT pg_reload_conf()")
    registry.execute(f"DROP ROLE {role}")


def test_missing_right_is_one_sentence(registry: Registry, source: OpenSource) -> None:
    role = f"stranger_{os.getpid()}"
    registry.execute(f"CREATE ROLE {role} LOGIN")
    try:
        url = make_url(registry.url).set(username=role).render_as_string(hide_password=False)
        said = refusal(source(url=url), SourceError)
        assert said.endswith("refused the access; grant it: docs/failures.md lists the rights that are needed.")
    finally:
        registry.execute(f"DROP ROLE {role}")


def test_statement_that_takes_too_long_is_one_sentence(registry: Registry, source: OpenSource) -> None:
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY)
    slow = source(select(condition="pg_sleep(5) IS NOT NULL"), statement_timeout="1s")
    assert refusal(slow, SourceError).endswith(
        "took too long; raise source.statement_timeout, or add the index in docs/sources."
    )


def test_lock_of_a_migration_is_one_sentence(registry: Registry, source: OpenSource) -> None:
    with psycopg.connect(registry.url) as migration:
        migration.execute("LOCK TABLE api_tokens")
        said = refusal(source(lock_timeout="1s"), SourceError)
    assert said.endswith("waited too long for a lock; run again when the migration on it has finished.")


def test_value_that_cannot_be_cast_is_not_repeated(registry: Registry, source: OpenSource) -> None:
    """Postgres quotes the value in its error; we must not."""
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY, name="hush-hush")
    said = refusal(source(select(condition="name::int > 0")), SourceError)
    assert "hush" not in said


def test_reading_stops_at_the_deadline(registry: Registry, source: OpenSource) -> None:
    """The statement that runs is interrupted: nothing of it is left on the server."""
    registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + DAY)
    late = source(select(condition="pg_sleep(200) IS NOT NULL"), deadline="1s")
    said = "Reading the source took longer than source.deadline; raise it, or narrow the query."
    assert refusal(late, SourceError) == said
    running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%%pg_sleep(200)%%'"
    assert registry.execute(f"{running} AND pid <> pg_backend_pid()") == [(0,)]
