"""Samples through a relay to one address."""

import shutil
from pathlib import Path

import pytest
from support.samples import NOW
from support.smtpd import Action, Smtpd, times

from token_pipelines import shipped
from token_pipelines.config import Config, load
from token_pipelines.errors import RelayError
from token_pipelines.operations.preview.test_send import send

CONFIG = """
source: {{url: "postgresql://127.0.0.1:1/nowhere", query: crates_io, timezone: UTC}}
ledger: {{url: "postgresql://127.0.0.1:1/nowhere"}}
schedule: {{start_date: 2026-01-01}}
tiers: [{{name: week, before: 7d}}, {{name: expired, after: 0d, within: 3d}}]
email:
  from: "Registry <noreply@example.org>"
  service: Registry
  links: {{manage: "https://example.org/tokens"}}
smtp: {{host: 127.0.0.1, port: {port}, security: none}}
delivery: {{mode: dry_run}}
"""


def config(folder: Path, port: int) -> Config:
    """Configure a relay on that port, and databases that nobody answers for."""
    shutil.copytree(shipped.path("templates"), folder / "templates")
    path = folder / "token_pipelines.yaml"
    path.write_text(CONFIG.format(port=port))
    return load(path)


def test_send_a_choice(tmp_path: Path) -> None:
    """Every kind once, every tier and language once, all to that address; no database is asked."""
    with Smtpd() as relay:
        assert send(config(tmp_path, relay.port), "you@example.org", now=NOW) == 12
    assert {message.recipient for message in relay.accepted} == {"you@example.org"}
    subjects = [message.message["Subject"] for message in relay.accepted]
    assert len(subjects) == 12
    assert "Ihr API-Token bei Registry ist abgelaufen" in subjects
    assert "Your Registry API token expires in 7 days" in subjects
    assert len({message.message["Message-ID"] for message in relay.accepted}) == 12


def test_send_refused(tmp_path: Path) -> None:
    """The sample is named, the address is not."""
    refusal = times(1, "rcpt", Action(code=550, text="5.1.1 <you@example.org> who?"))
    with Smtpd(script=refusal) as relay, pytest.raises(RelayError) as caught:
        send(config(tmp_path, relay.port), "you@example.org", now=NOW)
    assert str(caught.value).startswith("The relay did not accept sample 1 (expired-one-default): ")
    assert str(caught.value).endswith("; check the address, and the relay's log.")
    assert "you@" not in str(caught.value)


def test_send_without_a_relay(tmp_path: Path) -> None:
    with Smtpd() as relay:
        port = relay.port
    with pytest.raises(RelayError, match=r"127\.0\.0\.1"):
        send(config(tmp_path, port), "you@example.org", now=NOW)
