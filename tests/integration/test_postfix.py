"""A round trip with a real Postfix: delivered to a maildir; what it bounces comes back and is read into the ledger."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest
from support.pipeline import MakePipeline, Registry
from support.ports import free_port
from support.postfixd import Postfix, find_postfix
from support.smtpd import Action, Smtpd

from token_pipelines.cli.main import cli
from token_pipelines.feedback.bounces.reading import BounceCounts

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
WEEK = timedelta(days=7)
DOMAIN = "example.org"
FAR = "customer.example.net"
KNOWN = f"ada@{DOMAIN}"
UNKNOWN = f"nobody-here@{DOMAIN}"
REFUSED_FAR_AWAY = f"gone@{FAR}"
FULL_FAR_AWAY = f"full@{FAR}"


@pytest.fixture
def postfix() -> Iterator[Postfix]:
    """A Postfix that delivers at home, and relays ``FAR`` to a server that refuses everybody."""
    if find_postfix() is None:
        pytest.skip("Postfix is not installed")
    if os.geteuid() != 0:
        pytest.skip("Postfix starts as root only")
    # Not pytest's own folder: Postfix's users walk through it, and to nobody else's.
    root = Path(tempfile.mkdtemp(prefix="postfix-"))
    root.chmod(0o711)
    try:
        with (
            Smtpd(script=_refuse) as far,
            Postfix(root, free_port(), domain=DOMAIN, users=["ada", "bounces"], routes={FAR: far.port}) as server,
        ):
            yield server
    finally:
        shutil.rmtree(root)


def _refuse(stage: str, argument: str) -> Action | None:
    if stage != "rcpt":
        return None
    if FULL_FAR_AWAY in argument:
        return Action(code=552, text=f"5.2.2 <{FULL_FAR_AWAY}>: over quota")
    return Action(code=550, text=f"5.1.1 <{REFUSED_FAR_AWAY}>: no such user here")


def test_round_trip(
    postfix: Postfix, registry: Registry, make_pipeline: MakePipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three are told, three come back, in three ways; the ledger knows of each, and the next day tells nobody."""
    people = {
        address: registry.user(address, email=address) for address in (KNOWN, UNKNOWN, REFUSED_FAR_AWAY, FULL_FAR_AWAY)
    }
    others = [registry.user(f"other {number}", email=KNOWN) for number in range(2)]  # else it could be Postfix' fault
    for user in (*people.values(), *others):
        registry.token(user, expires_at=NOW + WEEK)
    pipeline = make_pipeline(postfix.port, email={"bounces": f"bounces@{DOMAIN}"})
    ledger = pipeline.parts(NOW).ledger
    assert pipeline.run(NOW).numbers == {"sent": 6}  # it took them all
    told = {str(entry["recipient_id"]): entry for entry in ledger.history.entries()}

    notice = told[str(people[KNOWN])]
    [delivered] = [mail for mail in postfix.wait_for_mail("ada", 3) if mail["Message-ID"] == notice["message_id"]]
    assert delivered["Return-Path"] == f"<bounces+{ledger.bounces.tag(str(notice['notice_id']))}@{DOMAIN}>"
    assert delivered["X-Original-To"] == delivered["To"] == KNOWN
    assert [part.get_content_type() for part in delivered.iter_parts()] == ["text/plain", "text/html"]
    text = delivered.get_body(("plain",))
    assert isinstance(text, EmailMessage)
    assert "https://example.org/settings/tokens" in text.get_content()

    reports = postfix.wait_for_mail("bounces", 3)
    assert {report["X-Original-To"] for report in reports} == {
        f"bounces+{ledger.bounces.tag(str(told[str(people[address])]['notice_id']))}@{DOMAIN}"
        for address in people
        if address != KNOWN
    }
    for expected in (BounceCounts(read=3, matched=3, recorded=3, suppressed=2), BounceCounts(read=3, seen=3)):
        arguments = ["bounces", "--config", str(pipeline.path), str(postfix.maildir("bounces")), "--json"]
        assert cli.main(arguments, standalone_mode=False) == 0
        said = capsys.readouterr()
        assert (json.loads(said.out), said.err) == ({"version": 1, **asdict(expected)}, "")

    after = {str(entry["recipient_id"]): entry for entry in ledger.history.entries()}
    assert {address: after[str(user)]["state"] for address, user in people.items()} == {
        KNOWN: "sent",
        UNKNOWN: "failed",
        REFUSED_FAR_AWAY: "failed",
        FULL_FAR_AWAY: "failed",
    }
    assert ledger.suppressions.among([ledger.hash_address(address) for address in people]) == {
        ledger.hash_address(address) for address in (UNKNOWN, REFUSED_FAR_AWAY)
    }
    assert {address: _last_reply(after[str(user)]) for address, user in people.items() if address != KNOWN} == {
        UNKNOWN: ("5.1.1", 'unknown user: "<address>"'),
        REFUSED_FAR_AWAY: ("5.1.1", "5.1.1 <address>: no such user here"),
        FULL_FAR_AWAY: ("5.2.2", "5.2.2 <address>: over quota"),
    }

    assert pipeline.run(NOW + timedelta(days=1)).numbers == {}
    ledger.close()


def test_many_over_one_connection(postfix: Postfix, registry: Registry, make_pipeline: MakePipeline) -> None:
    """Each is heard of behind the dot of the one before; where that is not allowed, this Postfix hangs up."""
    for number in range(40):
        user = registry.user(f"user{number}", email=KNOWN)
        registry.token(user, expires_at=NOW + WEEK)
    pipeline = make_pipeline(postfix.port, smtp={"connections": 1, "recycle_after": 30})
    assert pipeline.run(NOW).numbers == {"sent": 40}
    delivered = postfix.wait_for_mail("ada", 40)
    assert len({message["Message-ID"] for message in delivered}) == len(delivered) == 40
    assert postfix.log.count(": connect from") == 2
    assert "lost connection" not in postfix.log
    assert "pipelining" not in postfix.log


def _last_reply(entry: dict[str, object]) -> tuple[str, str]:
    tries = entry["attempts"]
    assert isinstance(tries, list)
    return tries[-1]["enhanced"], tries[-1]["reply"]
