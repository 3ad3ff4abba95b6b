"""The preset ``gitlab`` on GitLab's own tables."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.pipeline import NOW, PipelineRunner
from support.presets import Database
from support.smtpd import Smtpd

from token_pipelines.demo.postgres import EmbeddedPostgres
from token_pipelines.policy import Window

NAIVE_UTC = NOW.replace(tzinfo=None) - timedelta(days=300)
SOON = date(2026, 11, 27)
MIDNIGHT = datetime(2026, 11, 27, tzinfo=UTC)
SCOPES = "---\n- api\n- read_user\n"


@pytest.fixture(scope="module")
def shared(postgres_server: EmbeddedPostgres) -> Database:
    return Database.on(postgres_server, "gitlab")


@pytest.fixture
def gitlab(shared: Database) -> Database:
    return shared.empty()


def add_user(gitlab: Database, name: str = "Ada", **columns: Any) -> int:  # noqa: ANN401 -- columns of the table
    email = f"{name.lower()}@example.org"
    row = {"name": name, "email": email, "state": "active", "confirmed_at": NAIVE_UTC, "encrypted_password": "secret"}
    return int(gitlab.add("users", **row | columns))


def add_token(gitlab: Database, user_id: int, **columns: Any) -> int:  # noqa: ANN401 -- columns of the table
    row = {
        "user_id": user_id,
        "name": "ci",
        "expires_at": SOON,
        "created_at": NAIVE_UTC,
        "updated_at": NAIVE_UTC,
        "scopes": SCOPES,
        "token_digest": "secret",
    }
    return int(gitlab.add("personal_access_tokens", **row | columns))


def test_token_is_read_as_gitlab_means_it(gitlab: Database) -> None:
    used = NOW - timedelta(hours=5)
    user = add_user(gitlab, preferred_language="pt_BR")
    token = add_token(gitlab, user, name="deploy", last_used_at=used)

    assert gitlab.resolve(token) == {
        "token_id": str(token),
        "recipient_id": str(user),
        "created_at": pd.Timestamp(NAIVE_UTC, tz=UTC),
        "expires_at": pd.Timestamp(MIDNIGHT),
        "has_address": True,
        "unreadable": "",
        "email_verified": True,
        "revoked": False,
        "muted": False,
        "replaced_at": pd.NaT,
        "last_notified_at": pd.NaT,
        "token_name": "deploy",
        "recipient_name": "Ada",
        "email": "ada@example.org",
        "last_used_at": used,
        "scopes": ("api", "read_user"),
        "locale": "pt_BR",
        "timezone": None,
    }


@pytest.mark.parametrize(
    ("after", "before", "inside"),
    [
        ("2026-11-27T00:00:00Z", "2026-11-28T00:00:00Z", True),
        ("2026-11-27T00:00:01Z", "2026-11-28T00:00:00Z", False),  # the day has begun, the token is dead
        ("2026-11-26T00:00:00Z", "2026-11-27T00:00:01Z", True),
        ("2026-11-26T00:00:00Z", "2026-11-27T00:00:00Z", False),
        ("2026-11-27T01:00:00+01:00", "2026-11-27T01:00:01+01:00", True),
        ("2026-11-26T23:59:59-00:00", "2026-11-26T23:59:59-00:00", False),
    ],
)
def test_date_is_the_midnight_with_which_it_begins(gitlab: Database, after: str, before: str, inside: bool) -> None:  # noqa: FBT001 -- a table
    token = add_token(gitlab, add_user(gitlab))
    window = Window(expires_after=datetime.fromisoformat(after), expires_before=datetime.fromisoformat(before))
    assert gitlab.snapshot_ids(window) == ({str(token)} if inside else set())


def test_token_that_never_expires_is_not_read(gitlab: Database) -> None:
    add_token(gitlab, add_user(gitlab), expires_at=None)
    assert gitlab.snapshot_ids() == set()


@pytest.mark.parametrize(("revoked", "meant"), [(None, False), (False, False), (True, True)])
def test_unknown_revocation_is_none(gitlab: Database, revoked: bool | None, meant: bool) -> None:  # noqa: FBT001 -- a table
    token = add_token(gitlab, add_user(gitlab), revoked=revoked)
    assert bool(gitlab.snapshot().loc[str(token), "revoked"]) is meant


def test_token_that_does_not_say_whether_it_is_an_impersonation_is_read(gitlab: Database) -> None:
    gitlab.execute("ALTER TABLE personal_access_tokens ALTER impersonation DROP NOT NULL")
    token = add_token(gitlab, add_user(gitlab), impersonation=None)
    assert gitlab.snapshot_ids() == {str(token)}


def test_impersonation_is_left_out(gitlab: Database) -> None:
    add_token(gitlab, add_user(gitlab), impersonation=True)
    assert gitlab.snapshot_ids() == set()


@pytest.mark.parametrize(
    ("columns", "read"),
    [
        ({"user_type": 0}, True),
        ({"user_type": None}, True),  # a person of a time before GitLab 16
        ({"user_type": 6}, False),  # project_bot
        ({"user_type": 13}, False),  # service_account
        ({"user_type": 5}, False),  # ghost
        ({"state": "blocked"}, False),
        ({"state": "ldap_blocked"}, False),
        ({"state": "banned"}, False),
        ({"state": "deactivated"}, False),
        ({"state": None}, False),
    ],
)
def test_only_active_people_are_read(gitlab: Database, columns: dict[str, Any], read: bool) -> None:  # noqa: FBT001 -- a table
    add_token(gitlab, add_user(gitlab, **columns))
    assert len(gitlab.snapshot_ids()) == int(read)


@pytest.mark.parametrize(
    ("columns", "email"),
    [
        ({"notification_email": "work@example.org"}, "work@example.org"),
        ({"notification_email": None}, "ada@example.org"),
        ({"notification_email": ""}, "ada@example.org"),
        ({"notification_email": " ", "email": ""}, ""),
    ],
)
def test_notification_address_comes_before_the_other(gitlab: Database, columns: dict[str, Any], email: str) -> None:
    token = add_token(gitlab, add_user(gitlab, **columns))
    assert gitlab.resolve(token)["email"] == email
    assert bool(gitlab.snapshot()["has_address"].item()) is bool(email)


def test_user_who_has_not_confirmed_has_no_verified_address(gitlab: Database) -> None:
    add_token(gitlab, add_user(gitlab, confirmed_at=None))
    assert gitlab.snapshot()["email_verified"].tolist() == [False]


def test_latest_of_gitlabs_own_notices_counts(gitlab: Database) -> None:
    sixty, thirty = NOW - timedelta(days=53), NOW - timedelta(days=23)
    told = {"sixty_days_notification_sent_at": sixty, "thirty_days_notification_sent_at": thirty}
    token = add_token(gitlab, add_user(gitlab), **told)
    assert gitlab.resolve(token)["last_notified_at"] == thirty


def test_rotated_token_is_replaced_when_its_successor_is_made(gitlab: Database) -> None:
    user = add_user(gitlab)
    old, other = add_token(gitlab, user), add_token(gitlab, user)
    made = NAIVE_UTC + timedelta(days=290)
    for offset in (timedelta(hours=1), timedelta(0)):
        add_token(gitlab, user, created_at=made + offset, previous_personal_access_token_id=old, expires_at=None)

    assert gitlab.replaced_at(old) == made.replace(tzinfo=UTC)
    assert gitlab.replaced_at(other) is None


@pytest.mark.parametrize(
    ("yaml", "scopes"),
    [
        ("--- []\n", ()),
        ("---\n- api\n", ("api",)),
        ("---\n- :api\n- :read_registry\n", ("api", "read_registry")),
        ("---\n  - 'read_user'\n  - \"sudo\"\n", ("read_user", "sudo")),
        ("", ()),
    ],
)
def test_scopes_are_taken_out_of_their_yaml(gitlab: Database, yaml: str, scopes: tuple[str, ...]) -> None:
    token = add_token(gitlab, add_user(gitlab), scopes=yaml)
    assert gitlab.resolve(token)["scopes"] == scopes


def test_whole_day_writes_to_those_who_can_act(gitlab: Database, tmp_path: Path) -> None:
    ada, blocked = add_user(gitlab), add_user(gitlab, "Bob", state="blocked")
    add_token(gitlab, ada, name="deploy")
    add_token(gitlab, ada, name="gone", revoked=True)
    rotated = add_token(gitlab, ada, name="rotated")
    add_token(gitlab, ada, name="new", previous_personal_access_token_id=rotated, expires_at=date(2027, 11, 1))
    add_token(gitlab, blocked)

    with Smtpd() as server:
        source = {"url": gitlab.url, "query": "gitlab"}
        day = PipelineRunner(tmp_path, gitlab.url, server.port, source=source).run(NOW)

    [mail] = server.accepted
    body = mail.message.get_body(("plain",))
    assert mail.recipient == "ada@example.org"
    assert body is not None
    assert "27 November 2026" in body.get_content()
    assert day.examination.reasons == {"revoked": 1, "replaced": 1}
