"""What a spam filter thinks of our emails: SpamAssassin's local rules, no network, no daemon, no learning."""

import re
import shutil
import subprocess
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.samples import all_samples, shipped_config

from token_pipelines import bounce_address
from token_pipelines.envelope import Envelope
from token_pipelines.mail.message import Serialiser

PROGRAM = shutil.which("spamassassin")
AT_MOST = 0.5
PROCESSES = 2  # a start takes seconds, a message a third of one
SECONDS = 240
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
"""What every spam filter must refuse, by agreement: without it, a filter that is asleep would pass the test."""

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="spamassassin is missing (apt-get install spamassassin)")


def scores(mailbox: Path) -> dict[str, float]:
    """Message-ID to score, of every message in an mbox."""
    command = [str(PROGRAM), "--local", "--test-mode", "--cf=use_bayes 0", "--cf=use_auto_welcomelist 0", "--mbox"]
    done = subprocess.run(
        [*command, str(mailbox)],
        env={"HOME": str(mailbox.parent), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        timeout=SECONDS,
        check=True,
    )
    report = done.stdout.decode(errors="replace")
    found = re.findall(r"^X-Spam-Status:.*?score=(-?[\d.]+).*?^Message-ID: (<\S+>)", report, re.DOTALL | re.MULTILINE)
    return {message_id: float(score) for score, message_id in found}


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("all_headers", [False, True])
def test_every_email_is_no_spam(tmp_path: Path, all_headers: bool) -> None:  # noqa: FBT001 -- a test's parameter
    """At most half a point, of the five that make spam; as it is by default, and with every header that can be set."""
    messages = {message_id: made.data for message_id, made in written(all_headers=all_headers).items()}
    names = {b"List-Unsubscribe", b"List-Unsubscribe-Post", b"Feedback-ID"}
    for data in messages.values():
        head = data.partition(b"\r\n\r\n")[0]
        assert names & {line.partition(b":")[0] for line in head.split(b"\r\n")} == (names if all_headers else set())
    a_message = next(iter(messages.values()))
    messages["<gtube@example.org>"] = re.sub(
        rb"(?m)^Message-ID: .*\r$", b"Message-ID: <gtube@example.org>\r", a_message
    ).replace(b"Hello", GTUBE.encode())
    mailboxes = [tmp_path / f"{number}.mbox" for number in range(PROCESSES)]
    for number, mailbox in enumerate(mailboxes):
        mailbox.write_bytes(b"".join(_in_mbox(data) for data in list(messages.values())[number::PROCESSES]))
    with ThreadPoolExecutor(PROCESSES) as pool:
        found = {message_id: score for part in pool.map(scores, mailboxes) for message_id, score in part.items()}
    assert found.pop("<gtube@example.org>") > 100
    assert found.keys() == messages.keys() - {"<gtube@example.org>"}
    assert {message_id: score for message_id, score in found.items() if score > AT_MOST} == {}


def written(*, all_headers: bool) -> dict[str, Envelope]:
    """Every sample as a message that a server has taken, by its Message-ID."""
    now = datetime.now(UTC)
    email = shipped_config().email
    if all_headers:
        links = email.links.model_copy(update={"unsubscribe": "https://example.org/unsubscribe/{recipient_id}"})
        more = {"links": links, "bounces": "bounces@example.org", "feedback_id": "token-expiry:example-registry"}
        email = email.model_copy(update=more)
    serialiser = Serialiser(email, tag=lambda notice_id: bounce_address.tag(notice_id, b"key"))
    messages = {}
    for sample in all_samples():
        notice_id = str(uuid.uuid5(uuid.NAMESPACE_URL, sample.key))
        message_id = f"<{notice_id}@example.org>"
        made = serialiser.envelope(sample.content, sample.recipient, message_id=message_id, at=now)
        assert made.sender == (
            f"bounces+{bounce_address.tag(notice_id, b'key')}@example.org" if all_headers else "noreply@example.org"
        )
        # As the server that takes it writes down where it came from.
        return_path = f"Return-Path: <{made.sender}>\r\n".encode()
        messages[message_id] = replace(made, data=return_path + made.data)
    return messages


def _in_mbox(data: bytes) -> bytes:
    quoted = re.sub(rb"(?m)^(>*From )", rb">\1", data.replace(b"\r\n", b"\n"))
    return b"From noreply@example.org Mon Nov 23 14:06:00 2026\n" + quoted + b"\n\n"
