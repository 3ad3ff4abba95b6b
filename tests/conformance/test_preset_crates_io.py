"""When the preset ``crates_io`` calls a token replaced: the truth table.

A row says what the old and the newer token have beside what is needed. What lives expires further in the future than
the database's own clock will reach, and what is dead did so in the past.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.pipeline import PipelineRunner
from support.presets import Database
from support.smtpd import Smtpd

from token_pipelines.demo.postgres import EmbeddedPostgres

BORN = datetime(2020, 1, 1, tzinfo=UTC)
RENEWED = BORN + timedelta(days=80)
ENDS = datetime(2500, 1, 1, tzinfo=UTC)
LATER = ENDS + timedelta(days=90)
MOMENT = timedelta(microseconds=1)

OLD = {"name": "ci", "created_at": BORN, "expired_at": ENDS}
NEWER = {"name": "ci", "created_at": RENEWED, "expired_at": LATER}
SOME = {"endpoint_scopes": ["publish-update"], "crate_scopes": ["serde"]}

TABLE: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "the same in all but its dates": ({}, {}, True),
    "of another user": ({}, {"user_id": 2}, False),
    # Its life
    "older": ({}, {"created_at": BORN - MOMENT}, False),
    "as old": ({}, {"created_at": BORN}, False),
    "a microsecond younger": ({}, {"created_at": BORN + MOMENT}, True),
    "revoked": ({}, {"revoked": True}, False),
    "dead, though it outlived the old one": (
        {"expired_at": datetime(2021, 1, 1, tzinfo=UTC)},
        {"expired_at": datetime(2021, 2, 1, tzinfo=UTC)},
        False,
    ),
    "alive, the old one dead": ({"expired_at": datetime(2021, 1, 1, tzinfo=UTC)}, {}, True),
    "ends earlier": ({}, {"expired_at": ENDS - MOMENT}, False),
    "ends at the same instant": ({}, {"expired_at": ENDS}, False),
    "ends a microsecond later": ({}, {"expired_at": ENDS + MOMENT}, True),
    "never ends": ({}, {"expired_at": None}, True),
    # Its name
    "ci (copy)": ({}, {"name": "ci (copy)"}, True),
    "ci (Copy)": ({}, {"name": "ci (Copy)"}, True),
    "ci copy": ({}, {"name": "ci copy"}, True),
    "ci (renewed)": ({}, {"name": "ci (renewed)"}, True),
    "ci (2)": ({}, {"name": "ci (2)"}, True),
    "ci (9)": ({}, {"name": "ci (9)"}, True),
    "ci (1)": ({}, {"name": "ci (1)"}, False),
    "ci (10)": ({}, {"name": "ci (10)"}, False),
    "ci-2, which may be a second machine": ({}, {"name": "ci-2"}, False),
    "ci 2": ({}, {"name": "ci 2"}, False),
    "ci (copy) of a copy": ({}, {"name": "ci (copy) (copy)"}, False),
    "a copy of a copy": ({"name": "ci (copy)"}, {"name": "ci (copy) (copy)"}, True),
    "ci of ci (copy)": ({"name": "ci (copy)"}, {"name": "ci"}, False),
    "CI": ({}, {"name": "CI"}, False),
    "ci-windows": ({}, {"name": "ci-windows"}, False),
    "laptop": ({}, {"name": "laptop"}, False),
    "a name with a pattern's letters, itself": ({"name": "c.*[%_\\"}, {"name": "c.*[%_\\"}, True),
    "a name with a pattern's letters, another": ({"name": "c.*"}, {"name": "cii"}, False),
    "a name of two lines": ({}, {"name": "ci\n copy"}, False),
    # Its scopes; none of a kind: it may do everything there
    "the same scopes": (SOME, SOME, True),
    "the same scopes in another order": (
        {"endpoint_scopes": ["yank", "publish-new"]},
        {"endpoint_scopes": ["publish-new", "yank"]},
        True,
    ),
    "no scopes at all": (SOME, {}, True),
    "endpoint scopes, the old one none": ({}, {"endpoint_scopes": ["publish-update"]}, False),
    "crate scopes, the old one none": ({}, {"crate_scopes": ["serde"]}, False),
    "crate scopes, the old one an empty list": ({"crate_scopes": []}, {"crate_scopes": ["serde"]}, False),
    "an empty list of crates": (SOME, SOME | {"crate_scopes": []}, True),
    "an empty list of crates, the old one none": ({}, {"crate_scopes": []}, True),
    "an empty list of endpoints": (SOME, SOME | {"endpoint_scopes": []}, False),
    "more endpoints": (SOME, SOME | {"endpoint_scopes": ["yank", "publish-update"]}, True),
    "other endpoints": (SOME, SOME | {"endpoint_scopes": ["yank"]}, False),
    "fewer endpoints": (SOME | {"endpoint_scopes": ["yank", "publish-update"]}, SOME, False),
    "more crates": (SOME, SOME | {"crate_scopes": ["tokio", "serde"]}, True),
    "other crates": (SOME, SOME | {"crate_scopes": ["tokio"]}, False),
    "fewer crates": (SOME | {"crate_scopes": ["tokio", "serde"]}, SOME, False),
    "more crates, fewer endpoints": (
        {"endpoint_scopes": ["yank", "publish-update"], "crate_scopes": ["serde"]},
        {"endpoint_scopes": ["yank"]},
        False,
    ),
    "more endpoints, fewer crates": ({"endpoint_scopes": ["yank"]}, {"crate_scopes": ["serde"]}, False),
    "a pattern that matches, which we do not read": (SOME, SOME | {"crate_scopes": ["serde*"]}, False),
}


@pytest.fixture(scope="module")
def shared(postgres_server: EmbeddedPostgres) -> Database:
    return Database.on(postgres_server, "crates_io")


@pytest.fixture
def crates_io(shared: Database) -> Database:
    shared.empty()
    for login in ("ada", "bob"):
        shared.add("users", gh_id=1, gh_login=login)
    return shared


def add_token(crates_io: Database, columns: dict[str, Any]) -> str:
    return str(crates_io.add("api_tokens", **{"user_id": 1} | columns))


@pytest.mark.parametrize(("old", "newer", "replaces"), TABLE.values(), ids=TABLE)
def test_newer_token_replaces_the_old_one(
    crates_io: Database,
    old: dict[str, Any],
    newer: dict[str, Any],
    replaces: bool,  # noqa: FBT001 -- a table
) -> None:
    old_id, newer_id = add_token(crates_io, OLD | old), add_token(crates_io, NEWER | newer)
    assert crates_io.replaced_at(old_id) == ((NEWER | newer)["created_at"] if replaces else None)
    if (NEWER | newer)["expired_at"] is not None:
        assert crates_io.replaced_at(newer_id) is None


def test_first_of_several_successors_gives_the_instant_and_no_row_is_multiplied(crates_io: Database) -> None:
    old = add_token(crates_io, OLD)
    for hours in (2, 1, 3):
        add_token(crates_io, NEWER | {"created_at": RENEWED + timedelta(hours=hours)})
    assert crates_io.replaced_at(old) == RENEWED + timedelta(hours=1)


def test_successor_that_was_revoked_gives_the_old_token_back(crates_io: Database) -> None:
    old, newer = add_token(crates_io, OLD), add_token(crates_io, NEWER)
    crates_io.execute("UPDATE api_tokens SET revoked = true WHERE id = %s", int(newer))
    assert crates_io.replaced_at(old) is None


def test_day_tells_of_the_newer_token_only(crates_io: Database, tmp_path: Path) -> None:
    """Both expire within the week; the owner gets a notice about the one in use."""
    now = datetime.now(UTC)
    crates_io.add("emails", user_id=1, email="ada@example.org", verified=True)
    for name, days in (("deploy", 2), ("deploy (copy)", 5)):
        ends = now + timedelta(days=days)
        add_token(crates_io, {"name": name, "created_at": ends - timedelta(days=90), "expired_at": ends})

    with Smtpd() as server:
        day = PipelineRunner(tmp_path, crates_io.url, server.port).run(now)

    [mail] = server.accepted
    body = mail.message.get_body(("plain",))
    assert body is not None
    assert "deploy (copy)" in body.get_content()
    assert day.examination.reasons == {"replaced": 1}
