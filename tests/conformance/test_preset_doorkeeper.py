"""The preset ``doorkeeper`` on Mastodon's tables, and on those of a plainer application."""

from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.pipeline import DAY, NOW, PipelineRunner
from support.presets import Database
from support.smtpd import Smtpd

from token_pipelines.demo.postgres import EmbeddedPostgres
from token_pipelines.policy import Window

SECRETS = count(1)
NAIVE = NOW.replace(tzinfo=None)
BORN = NAIVE - 58 * DAY
SIXTY_DAYS = 60 * 86400
SECOND = timedelta(seconds=1)

# Lives in which the database's own clock is sure to be: from 2001 to 2060.
LONG_AGO = datetime(2001, 1, 1)  # noqa: DTZ001 -- as Rails keeps instants
FOR_AGES = 60 * 365 * 86400


@pytest.fixture(scope="module")
def shared(postgres_server: EmbeddedPostgres) -> Database:
    return Database.on(postgres_server, "doorkeeper")


@pytest.fixture
def doorkeeper(shared: Database) -> Database:
    return shared.empty()


def add_user(doorkeeper: Database, name: str = "ada", **columns: Any) -> int:  # noqa: ANN401 -- columns of the table
    row = {
        "email": f"{name}@example.org",
        "created_at": BORN,
        "updated_at": BORN,
        "confirmed_at": BORN,
        "account_id": 1,
    }
    return int(doorkeeper.add("users", **row | columns))


def add_application(doorkeeper: Database, name: str = "Tusky") -> int:
    row = {"name": name, "uid": f"uid-{name}", "secret": "secret", "redirect_uri": "https://example.org"}
    return int(doorkeeper.add("oauth_applications", **row))


def add_token(doorkeeper: Database, user_id: int, application_id: int | None = None, **columns: Any) -> int:  # noqa: ANN401 -- columns of the table
    row: dict[str, Any] = {
        "resource_owner_id": user_id,
        "application_id": application_id,
        "token": f"secret-{next(SECRETS)}",
        "created_at": BORN,
        "expires_in": SIXTY_DAYS,
        "scopes": "read write",
    }
    return int(doorkeeper.add("oauth_access_tokens", **row | columns))


def test_token_is_read_as_doorkeeper_means_it(doorkeeper: Database) -> None:
    user = add_user(doorkeeper, locale="de", time_zone="Europe/Berlin")
    token = add_token(doorkeeper, user, add_application(doorkeeper))

    assert doorkeeper.resolve(token) == {
        "token_id": str(token),
        "recipient_id": str(user),
        "created_at": pd.Timestamp(BORN, tz=UTC),
        "expires_at": pd.Timestamp(NOW + 2 * DAY),
        "has_address": True,
        "unreadable": "",
        "email_verified": True,
        "revoked": False,
        "muted": False,
        "replaced_at": pd.NaT,
        "last_notified_at": pd.NaT,
        "token_name": "Tusky",
        "recipient_name": None,
        "email": "ada@example.org",
        "last_used_at": None,
        "scopes": ("read", "write"),
        "locale": "de",
        "timezone": "Europe/Berlin",
    }


@pytest.mark.parametrize(
    ("after", "before", "inside"),
    [
        (timedelta(0), SECOND, True),
        (SECOND, 2 * SECOND, False),
        (-SECOND, timedelta(0), False),
    ],
)
def test_expiry_is_creation_and_seconds(
    doorkeeper: Database,
    after: timedelta,
    before: timedelta,
    inside: bool,  # noqa: FBT001 -- a table
) -> None:
    token = add_token(doorkeeper, add_user(doorkeeper))
    expiry = NOW + 2 * DAY
    window = Window(expires_after=expiry + after, expires_before=expiry + before)
    assert doorkeeper.snapshot_ids(window) == ({str(token)} if inside else set())


@pytest.mark.parametrize(
    ("columns", "read"),
    [
        ({"expires_in": None}, False),  # never expires, as Mastodon's own do
        ({"created_at": NAIVE, "expires_in": 86400}, False),
        ({"created_at": NAIVE, "expires_in": 86401}, True),
        ({"resource_owner_id": None}, False),  # an application's own, by its credentials
        ({"resource_owner_id": 404}, False),
        ({"application_id": None}, True),
        ({"application_id": 404}, True),
    ],
)
def test_only_what_lives_longer_than_a_day_and_belongs_to_a_person_is_read(
    doorkeeper: Database,
    columns: dict[str, Any],
    read: bool,  # noqa: FBT001 -- a table
) -> None:
    add_token(doorkeeper, add_user(doorkeeper), **{"application_id": add_application(doorkeeper)} | columns)
    assert len(doorkeeper.snapshot_ids()) == int(read)


def test_revoked_token_is_named_so(doorkeeper: Database) -> None:
    add_token(doorkeeper, add_user(doorkeeper), revoked_at=NAIVE)
    assert doorkeeper.snapshot()["revoked"].tolist() == [True]


@pytest.mark.parametrize(
    ("columns", "flags"), [({"confirmed_at": None}, [False, True]), ({"email": ""}, [True, False])]
)
def test_user_without_a_confirmed_address_is_named_so(
    doorkeeper: Database, columns: dict[str, Any], flags: list[bool]
) -> None:
    add_token(doorkeeper, add_user(doorkeeper, **columns))
    assert doorkeeper.snapshot()[["email_verified", "has_address"]].to_numpy().tolist() == [flags]


def test_disabled_user_is_left_out(doorkeeper: Database) -> None:
    add_token(doorkeeper, add_user(doorkeeper, disabled=True))
    assert doorkeeper.snapshot_ids() == set()


def test_user_of_whom_it_is_not_known_whether_they_are_disabled_is_told(doorkeeper: Database) -> None:
    doorkeeper.execute("ALTER TABLE users ALTER disabled DROP NOT NULL")
    token = add_token(doorkeeper, add_user(doorkeeper, disabled=None))
    assert doorkeeper.snapshot_ids() == {str(token)}


OLD: dict[str, Any] = {"created_at": LONG_AGO, "expires_in": FOR_AGES}
NEWER: dict[str, Any] = {"created_at": LONG_AGO + DAY, "expires_in": FOR_AGES}


@pytest.mark.parametrize(
    ("old", "newer", "replaces"),
    [
        ({}, {}, True),
        ({}, {"expires_in": None}, True),
        ({}, {"resource_owner_id": 2}, False),
        ({}, {"application_id": 2}, False),
        ({"application_id": None}, {"application_id": None}, False),  # by hand, each for something else
        ({}, {"created_at": LONG_AGO}, False),
        ({}, {"created_at": LONG_AGO - DAY, "expires_in": None}, False),
        ({}, {"revoked_at": LONG_AGO + 2 * DAY}, False),
        ({}, {"expires_in": FOR_AGES - 86400}, False),  # ends at the same instant
        ({}, {"expires_in": FOR_AGES - 86399}, True),
        ({"expires_in": 86400 * 30}, {"expires_in": 86400 * 40}, False),  # both are dead
        ({"expires_in": 86400 * 30}, {}, True),
        ({}, {"scopes": "write follow read"}, True),
        ({}, {"scopes": "read"}, False),
        ({}, {"scopes": None}, False),
        ({"scopes": None}, {"scopes": "read"}, True),
    ],
)
def test_token_is_replaced_by_the_one_with_which_the_application_goes_on(
    doorkeeper: Database,
    old: dict[str, Any],
    newer: dict[str, Any],
    replaces: bool,  # noqa: FBT001 -- a table
) -> None:
    for name in ("ada", "bob"):
        add_user(doorkeeper, name)
        add_application(doorkeeper, f"app of {name}")
    old_id = add_token(doorkeeper, 1, **{"application_id": 1} | OLD | old)
    newer_id = add_token(doorkeeper, 1, **{"application_id": 1} | NEWER | newer)

    assert doorkeeper.replaced_at(old_id) == ((LONG_AGO + DAY).replace(tzinfo=UTC) if replaces else None)
    if (NEWER | newer)["expires_in"] is not None and (NEWER | newer)["created_at"] > LONG_AGO:
        assert doorkeeper.replaced_at(newer_id) is None


def test_users_may_lack_what_only_mastodon_and_devise_give_them(doorkeeper: Database) -> None:
    token = add_token(doorkeeper, add_user(doorkeeper), add_application(doorkeeper))
    optional = ("confirmed_at", "locale", "time_zone", "disabled")
    kept = {name: f"users_{name}" for name in optional}
    for name, away in kept.items():
        doorkeeper.execute(f"ALTER TABLE users RENAME COLUMN {name} TO {away}")
    try:
        found = doorkeeper.resolve(token)
    finally:
        for name, away in kept.items():
            doorkeeper.execute(f"ALTER TABLE users RENAME COLUMN {away} TO {name}")
    expected = {"email": "ada@example.org", "email_verified": True, "locale": None, "timezone": None}
    assert {name: found[name] for name in expected} == expected


def test_whole_day_names_the_application(doorkeeper: Database, tmp_path: Path) -> None:
    ada, tusky = add_user(doorkeeper), add_application(doorkeeper)
    add_token(doorkeeper, ada, tusky)
    add_token(doorkeeper, ada, revoked_at=NAIVE)

    with Smtpd() as server:
        source = {"url": doorkeeper.url, "query": "doorkeeper"}
        day = PipelineRunner(tmp_path, doorkeeper.url, server.port, source=source).run(NOW)

    [mail] = server.accepted
    body = mail.message.get_body(("plain",))
    assert body is not None
    assert "Tusky" in body.get_content()
    assert day.examination.reasons == {"revoked": 1}
