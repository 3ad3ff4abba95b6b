"""No address, no token's secret and no password is left behind anywhere, whatever goes wrong."""

import base64
import zlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pyarrow.parquet as pq
import pytest
from psycopg import sql
from sqlalchemy import make_url
from support.commands import Command
from support.pipeline import DAY, NOW, Registry, write_config
from support.smtpd import Action, Smtpd

DOMAIN = "planted-addresses.example"
LOCAL_PART = "planted-o'"
ADDRESSES = {name: f"{LOCAL_PART}{name}@{DOMAIN}" for name in ("ada", "bob", "eve", "mallory")}
SECRET = "planted-token-secret-8231"
SMTP_PASSWORD = "planted-smtp-password-5512"
DATABASE_PASSWORD = "planted-database-password-9907"
PERSON = "Planted Person-Name"
TOKEN_NAME = "planted-token-name"

PLANTED = [DOMAIN, LOCAL_PART, *ADDRESSES.values(), SECRET, SMTP_PASSWORD, DATABASE_PASSWORD, PERSON, TOKEN_NAME]
RUN = ("run", "--now", "2026-11-20T09:00:00Z")


def forms(text: str) -> Iterator[bytes]:
    """A text in each form in which it may lie about, in lower case where case does not matter."""
    yield text.lower().encode()
    yield quote(text, safe="").lower().encode()
    yield text.encode("utf-16-le").lower()
    yield text.encode("utf-16-be").lower()
    yield text.encode().hex().encode()
    yield text.encode()[::-1].lower()


def base64_forms(text: str) -> Iterator[bytes]:
    """What base64 makes of it in the middle of something longer, at each of the three alignments."""
    for start in range(3):
        encoded = base64.b64encode(b"\0" * start + text.encode())
        yield encoded[-(-start * 8 // 6) : len(encoded) // 4 * 4 - 4]


def found_in(content: bytes) -> list[str]:
    """Which of the planted texts are in there."""
    lower = content.lower()
    return [
        text
        for text in PLANTED
        if any(form in lower for form in forms(text)) or any(form in content for form in base64_forms(text))
    ]


@pytest.mark.parametrize("text", PLANTED)
@pytest.mark.parametrize("lead", ["", "x", "xy"])
def test_search_finds_what_was_planted(text: str, lead: str) -> None:
    """Or the test below would pass on anything."""
    around = f"{lead}{text} and more"
    for content in (
        around.encode(),
        around.upper().encode(),
        around.encode("utf-16-le"),
        around.encode("utf-16-be"),
        base64.b64encode(around.encode()),
        quote(around).encode(),
        around.encode().hex().encode(),
    ):
        assert text in found_in(content)
    assert found_in(b"an innocent planted text") == []


def left_in_files(folder: Path) -> dict[str, bytes]:
    """Every file's content; of a parquet file also its rows, which are compressed."""
    contents = {}
    for path in folder.rglob("*"):
        if path.is_file():
            contents[str(path)] = str(path).encode() + path.read_bytes()
            if path.suffix == ".parquet":
                contents[str(path)] += repr(pq.read_table(path).to_pylist()).encode()
    return contents


def left_in_database(url: str) -> dict[str, bytes]:
    """Every row of every table, as text, and of bytes also what they are when decompressed."""
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables"
            " WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        contents = {}
        for schema, table in tables:
            rows = connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(schema, table))).fetchall()
            contents[f"{schema}.{table}"] = b"\n".join(_cell(cell) for row in rows for cell in row)
    return contents


def _cell(cell: object) -> bytes:
    if isinstance(cell, bytes | memoryview):
        raw = bytes(cell)
        try:
            return raw + zlib.decompress(raw)
        except zlib.error:
            return raw
    return str(cell).encode()


def misbehave(stage: str, argument: str) -> Action | None:
    """A relay that repeats addresses in its answers, as real ones do."""
    if stage == "rcpt" and "bob" in argument:
        name = argument.partition("@")[0]
        return Action(code=550, text=f"5.1.1 <{argument}>: Recipient address rejected: {name}... {argument} unknown")
    if stage == "rcpt" and "eve" in argument:
        apart = argument.replace("@", "@ ")
        return Action(code=450, text=f"4.2.2 {apart}: box of {argument.upper()} ({quote(argument, safe='')}) full")
    if stage == "dot" and "mallory" in argument:
        name = argument.partition("@")[0]
        return Action(code=554, text=f"5.6.0 message for {argument} refused, mailbox {name.upper()} is closed to you")
    return None


@pytest.fixture
def planted(registry_url: str) -> Registry:
    """A registry full of what must not leave it."""
    registry = Registry(registry_url)
    for number, (name, address) in enumerate(ADDRESSES.items()):
        user = registry.user(name, email=address, name=PERSON)
        secret = f"{SECRET}-{number}".encode()
        registry.token(user, expires_at=NOW + 2 * DAY, name=TOKEN_NAME, token=secret)
    registry.token(registry.user("broken", email=f"not an address {DOMAIN}"), expires_at=NOW + DAY)
    return registry


def test_nothing_planted_is_left_behind(
    command: Command,
    planted: Registry,
    dagster_url: str,
    closed_port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for section, url in (("SOURCE", planted.url), ("LEDGER", dagster_url)):
        secret = make_url(url).set(password=DATABASE_PASSWORD).render_as_string(hide_password=False)
        monkeypatch.setenv(f"TOKEN_PIPELINES__{section}__URL", secret)
    monkeypatch.setenv("TOKEN_PIPELINES__SMTP__PASSWORD", SMTP_PASSWORD)
    harmless = "postgresql://somewhere.else/registry"
    said = []

    with Smtpd(credentials={"mailer": "another password"}) as relay:
        write_config(tmp_path, harmless, relay.port, smtp={"username": "mailer"})
        said.append(command(*RUN))  # the login is refused
    write_config(tmp_path, harmless, closed_port, smtp={"username": "mailer"})
    said.append(command(*RUN))  # the relay is down
    with Smtpd(credentials={"mailer": SMTP_PASSWORD}, script=misbehave) as relay:
        write_config(tmp_path, harmless, relay.port, smtp={"username": "mailer"})
        said.append(command(*RUN))
        said.append(command("history", "--json"))
        said.append(command("history"))
        _write_query_that_quotes_values(tmp_path)
        write_config(tmp_path, harmless, relay.port, source={"query": "tokens.sql"}, smtp={"username": "mailer"})
        said.append(command(*RUN))  # Postgres quotes addresses in its errors, row by row
        _write_query_that_quotes_values(tmp_path, condition="AND email::int = 7")
        said.append(command(*RUN))  # it refuses the whole query, and quotes an address
        said.append(command(*RUN, "--json"))
    (tmp_path / "token_pipelines.yaml").unlink()
    (tmp_path / "tokens.sql").unlink()

    assert [accepted.recipient for accepted in relay.accepted] == [ADDRESSES["ada"]], "it was really sent"
    assert [each.status for each in said] == [1, 1, 1, 0, 0, 0, 1, 1]
    files, ledger = left_in_files(tmp_path), left_in_database(dagster_url)
    assert any(name.endswith(".parquet") for name in files)
    assert any("storage" in name for name in files), "Dagster's logs of each step are among them"
    assert b"5.1.1" in ledger["token_pipelines.attempts"]
    assert b"daily_notices" in ledger["public.event_logs"]
    terminal = {f"command {number}": (each.out + each.err).encode() for number, each in enumerate(said)}
    log = {"log": caplog.text.encode()}
    left = {name: found for name, content in (files | ledger | terminal | log).items() if (found := found_in(content))}
    assert left == {}


def _write_query_that_quotes_values(folder: Path, condition: str = "") -> None:
    (folder / "tokens.sql").write_text(
        "SELECT api_tokens.id AS token_id, user_id AS recipient_id, api_tokens.created_at, expired_at AS expires_at,"  # noqa: S608 -- a test's own words
        " api_tokens.name AS token_name, users.name AS recipient_name, email, email::int = 7 AS email_verified"
        " FROM api_tokens JOIN users ON users.id = user_id JOIN emails USING (user_id)"
        f" WHERE expired_at >= :expires_after AND expired_at < :expires_before {condition}"
    )


STEPS = [
    "token_pipelines.source.source.Source.snapshot",
    "token_pipelines.policy.Policy.decide",
    "token_pipelines.defs.storage.write_atomically",
    "token_pipelines.ledger.told.Told.history",
    "token_pipelines.ledger.fuse.Fuse.open_trip",
    "token_pipelines.ledger.planning.Planning.draft",
    "token_pipelines.ledger.planning.Planning.carry_out",
    "token_pipelines.ledger.sending.Sending.claim",
    "token_pipelines.source.source.Source.resolve",
    "token_pipelines.ledger.suppressions.Suppressions.among",
    "token_pipelines.channel.Channel.write",
    "token_pipelines.mail.message.Serialiser.envelope",
    "token_pipelines.smtp.relay.Relay.connect",
    "token_pipelines.ledger.sending.Sending.settle",
]
"""Where a day meets an address, or could."""


class OddError(Exception):
    """An error that nobody expected."""


def test_nothing_of_an_unexpected_error_is_left_behind(
    command: Command,
    planted: Registry,
    dagster_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its words hold an address, and so do those of the error behind it; only where it was raised is said."""

    def fail(*_: object, **__: object) -> None:
        try:
            int(ADDRESSES["ada"])
        except ValueError as error:
            msg = f"cannot use {ADDRESSES['bob']} and {SECRET}"
            raise OddError(msg) from error

    said = {}
    with Smtpd() as relay:
        write_config(tmp_path, planted.url, relay.port)
        for step in STEPS:
            with monkeypatch.context() as patched:
                patched.setattr(step, fail)
                said[step] = command(*RUN)
        assert relay.accepted == []
    (tmp_path / "token_pipelines.yaml").unlink()

    assert {step: each.status for step, each in said.items()} == dict.fromkeys(STEPS, 1)
    assert "OddError at fail:" in said[STEPS[0]].err
    terminal = {f"terminal, {step}": (each.out + each.err).encode() for step, each in said.items()}
    log = {"log": caplog.text.encode()}
    places = left_in_files(tmp_path) | left_in_database(dagster_url) | terminal | log
    assert {name: found for name, content in places.items() if (found := found_in(content))} == {}
