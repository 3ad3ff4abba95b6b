"""The preset ``django`` on the tables of django-rest-knox and django.contrib.auth."""

from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.pipeline import DAY, NOW, PipelineRunner
from support.presets import WINDOW, Database
from support.smtpd import Smtpd

from token_pipelines.demo.postgres import EmbeddedPostgres

SECRETS = count(1)
MOMENT = timedelta(microseconds=1)
BORN = NOW - 58 * DAY + timedelta(microseconds=123_457)


@pytest.fixture(scope="module")
def shared(postgres_server: EmbeddedPostgres) -> Database:
    return Database.on(postgres_server, "django")


@pytest.fixture
def django(shared: Database) -> Database:
    return shared.empty()


def add_user(django: Database, name: str = "ada", **columns: Any) -> int:  # noqa: ANN401 -- columns of the table
    row = {
        "username": name,
        "password": "secret",
        "first_name": "Ada",
        "last_name": "Lovelace",
        "email": f"{name}@example.org",
        "is_superuser": False,
        "is_staff": False,
        "is_active": True,
        "date_joined": BORN,
    }
    return int(django.add("auth_user", **row | columns))


def add_token(django: Database, user_id: int, **columns: Any) -> str:  # noqa: ANN401 -- columns of the table
    """Add a token, and give the id by which the preset names it."""
    row: dict[str, Any] = {"user_id": user_id, "created": BORN, "expiry": NOW + 2 * DAY}
    row |= {"digest": f"secret-{next(SECRETS)}", "token_key": "secret"} | columns
    django.add("knox_authtoken", **row)
    born = (pd.Timestamp(row["created"]) - pd.Timestamp(0, tz="UTC")) // MOMENT
    return f"{user_id}-{born}"


def test_token_is_read_as_knox_means_it(django: Database) -> None:
    user = add_user(django)
    token = add_token(django, user)

    assert django.snapshot_ids() == {token}
    assert django.resolve(token) == {
        "token_id": token,
        "recipient_id": str(user),
        "created_at": pd.Timestamp(BORN),
        "expires_at": pd.Timestamp(NOW + 2 * DAY),
        "has_address": True,
        "unreadable": "",
        "email_verified": True,
        "revoked": False,
        "muted": False,
        "replaced_at": pd.NaT,
        "last_notified_at": pd.NaT,
        "token_name": None,
        "recipient_name": "Ada Lovelace",
        "email": "ada@example.org",
        "last_used_at": None,
        "scopes": None,
        "locale": None,
        "timezone": None,
    }


def test_two_tokens_of_a_user_differ_by_a_microsecond(django: Database) -> None:
    user = add_user(django)
    tokens = {add_token(django, user, created=BORN + number * MOMENT) for number in range(3)}
    assert len(tokens) == 3
    assert django.snapshot_ids() == tokens


def test_window_begins_with_and_ends_before(django: Database) -> None:
    user = add_user(django)
    instants = [
        WINDOW.expires_after,
        WINDOW.expires_before - MOMENT,
        WINDOW.expires_after - MOMENT,
        WINDOW.expires_before,
    ]
    tokens = [
        add_token(django, user, created=BORN + number * DAY, expiry=instant) for number, instant in enumerate(instants)
    ]
    add_token(django, user, created=BORN - DAY, expiry=None)
    assert django.snapshot_ids() == set(tokens[:2])


def test_user_who_is_not_active_is_left_out(django: Database) -> None:
    add_token(django, add_user(django, is_active=False))
    assert django.snapshot_ids() == set()


def test_user_without_an_address_is_named_so(django: Database) -> None:
    add_token(django, add_user(django, email=""))
    assert django.snapshot()["has_address"].tolist() == [False]


@pytest.mark.parametrize(
    ("columns", "name"),
    [({"last_name": ""}, "Ada"), ({"first_name": "", "last_name": ""}, "ada"), ({}, "Ada Lovelace")],
)
def test_user_is_called_by_their_name_or_their_login(django: Database, columns: dict[str, Any], name: str) -> None:
    token = add_token(django, add_user(django, **columns))
    assert django.resolve(token)["recipient_name"] == name


def test_expiry_that_each_use_moves_keeps_the_id(django: Database) -> None:
    token = add_token(django, add_user(django))
    django.execute("UPDATE knox_authtoken SET expiry = %s", NOW + 9 * DAY)
    assert django.snapshot().loc[token, "expires_at"] == NOW + 9 * DAY


def test_whole_day_writes_to_the_user(django: Database, tmp_path: Path) -> None:
    add_token(django, add_user(django))

    with Smtpd() as server:
        source = {"url": django.url, "query": "django"}
        day = PipelineRunner(tmp_path, django.url, server.port, source=source).run(NOW)

    [mail] = server.accepted
    assert mail.recipient == "ada@example.org"
    assert day.numbers == {"sent": 1}
