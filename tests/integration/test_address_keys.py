"""The keys of address hashes: the ledger's own, those of the environment, their rotation, and what is dropped."""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path

import pytest
from support.ledger import HASH, NOW, deliver, due, ledger_at, plan, query
from support.ledger import SENT as SENT_OUTCOME
from support.pipeline import PipelineRunner, Registry, write_config
from support.smtpd import Action, Smtpd

from token_pipelines.cli.main import main
from token_pipelines.config import load
from token_pipelines.errors import ConfigError
from token_pipelines.ledger.ledger import Ledger
from token_pipelines.model import Mode
from token_pipelines.planning import REPORTS_MAY_TAKE

ADA = "ada@example.org"
OLD, NEW = b"o" * 32, b"n" * 32
VARIABLE = "TOKEN_PIPELINES__LEDGER__ADDRESS_KEY"
DAY = timedelta(days=1)


@pytest.fixture
def keyed(database_url: str) -> Iterator[Callable[..., Ledger]]:
    with ExitStack() as stack:
        yield lambda *keys: stack.enter_context(closing(ledger_at(database_url, address_keys=keys)))


def test_key_of_the_environment_is_not_in_the_ledger(ledger: Ledger, keyed: Callable[..., Ledger]) -> None:
    """And the ledger makes none of its own then."""
    with_key = keyed(NEW)
    found = with_key.hash_address(ADA)
    assert len(found) == 36
    assert query(ledger, "SELECT name FROM token_pipelines.secrets") == []
    assert with_key.hash_address.known(ADA) == (found,)
    assert keyed(OLD).hash_address(ADA)[:4] != found[:4]
    assert not keyed(OLD).hash_address.knows_key_of(found)


def test_key_is_rotated_and_what_was_hashed_before_is_found(ledger: Ledger, keyed: Callable[..., Ledger]) -> None:
    """The ledger's own, then one of the environment, then the next one."""
    own, old = ledger.hash_address(ADA), keyed(OLD).hash_address(ADA)
    rotated = keyed(NEW, OLD)
    assert rotated.hash_address.known(ADA) == (rotated.hash_address(ADA), old, own)
    assert len({*rotated.hash_address.known(ADA)}) == 3
    assert all(map(rotated.hash_address.knows_key_of, rotated.hash_address.known(ADA)))
    query(ledger, "DELETE FROM token_pipelines.secrets")
    assert keyed(NEW).hash_address.known(ADA) == (rotated.hash_address(ADA),)


def test_suppression_of_an_older_key_is_obeyed(
    tmp_path: Path, registry_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a run, and by every command: it is one address, not two."""
    registry = Registry(registry_url)
    registry.token(registry.user("ada", email=ADA), expires_at=NOW + 5 * DAY)
    config = write_config(tmp_path, registry_url, 1)

    def suppress(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["token-pipelines", "suppress", arguments[0], "--config", str(config), "-"])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(ADA.encode())))
        with pytest.raises(SystemExit):
            main()
        return capsys.readouterr().out

    assert suppress("add").startswith("1 added")
    monkeypatch.setenv(VARIABLE, f"{NEW.decode()} {OLD.decode()}")
    assert suppress("add") == "0 added, 1 suppressed already.\n"
    assert suppress("check").startswith("1: suppressed since")
    with Smtpd() as relay:
        day = PipelineRunner(tmp_path, registry_url, relay.port).run(NOW)
        assert relay.accepted == []
    assert day.skipped == {"suppressed": 1}
    assert suppress("remove") == "1 removed, 0 not suppressed.\n"


def test_refused_address_of_an_older_key_is_not_tried_again(
    tmp_path: Path, registry_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another key is not another address; nor is a hash whose key nobody has any more."""
    registry = Registry(registry_url)
    registry.token(registry.user("ada", email=ADA), expires_at=NOW + 7 * DAY)
    registry.token(registry.user("bob", email="bob@example.org"), expires_at=NOW + 7 * DAY)

    def told(day: int) -> list[str]:
        with Smtpd(script=lambda _, to: Action(code=550, text="5.2.1 no") if "ada" in to else None) as relay:
            PipelineRunner(tmp_path, registry_url, relay.port).run(NOW + day * DAY)
        return [each.recipient for each in relay.accepted]

    monkeypatch.setenv(VARIABLE, OLD.decode())
    assert told(0) == ["bob@example.org"]
    registry.execute("UPDATE token_pipelines.notices SET state = 'failed' WHERE state = 'deferred'")
    registry.execute("UPDATE token_pipelines.attempts SET state = 'failed' WHERE state = 'deferred'")
    for keys in (f"{NEW.decode()} {OLD.decode()}", NEW.decode()):
        monkeypatch.setenv(VARIABLE, keys)
        assert told(1) == []
        assert registry.execute("SELECT count(*) FROM token_pipelines.notices") == [(2,)]


def test_hashes_of_attempts_are_dropped_when_no_tier_needs_them(ledger: Ledger) -> None:
    """Only when every token of the notice is long over."""
    expiry = NOW + DAY
    notices = plan(ledger, due(("1", "7", "day"), expires_at=expiry))
    with ledger.sending(run_id="r", mode=Mode.LIVE, has_ended=lambda _: False) as sending:
        for notice_id in notices.values():
            deliver(sending, notice_id, SENT_OUTCOME)
    later = NOW + 30 * DAY
    assert ledger.hash_address.drop_old(expired_before=expiry, tried_before=later) == 0
    assert ledger.hash_address.drop_old(expired_before=later, tried_before=NOW) == 0
    assert query(ledger, "SELECT address_hash FROM token_pipelines.attempts") == [(HASH,)]
    assert ledger.hash_address.drop_old(expired_before=later, tried_before=later) == 1
    assert query(ledger, "SELECT address_hash FROM token_pipelines.attempts") == [(None,)]


@pytest.mark.parametrize(("days", "kept"), [(2 + 3 + REPORTS_MAY_TAKE.days, 1), (3 + 3 + REPORTS_MAY_TAKE.days, 0)])
def test_hashes_of_attempts_are_dropped_by_a_days_run(tmp_path: Path, registry_url: str, days: int, kept: int) -> None:
    """By itself: three days of the last tier and two weeks for reports after the expiry."""
    registry = Registry(registry_url)
    registry.token(registry.user("ada", email=ADA), expires_at=NOW + 2 * DAY)
    for at in (NOW, NOW + days * DAY):
        with Smtpd() as relay:
            PipelineRunner(tmp_path, registry_url, relay.port).run(at)
    assert registry.execute("SELECT count(address_hash) FROM token_pipelines.attempts") == [(kept,)]


@pytest.mark.parametrize("value", ["short", "   ", f"{'n' * 32} short"])
def test_key_that_can_be_guessed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """With the cure, and without the key."""
    path = write_config(tmp_path, "postgresql://localhost/x", 1)
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ConfigError, match="openssl rand -base64 32") as refused:
        load(path)
    assert value.strip() == "" or value not in str(refused.value)


def test_key_in_the_file_is_refused(tmp_path: Path) -> None:
    path = write_config(tmp_path, "postgresql://localhost/x", 1, ledger={"address_key": "k" * 40})
    with pytest.raises(ConfigError, match=f"does not belong in the file; set {VARIABLE}"):
        load(path)
