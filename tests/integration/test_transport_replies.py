"""What is kept of the relay's replies: the queue id, the words without addresses, a limited length."""

import pytest
from support.smtpd import Action, Smtpd, times
from support.transport import DATA, ENVELOPE, UP_TO_DOT, answers, connect, send

from token_pipelines.envelope import Envelope
from token_pipelines.errors import RelayError
from token_pipelines.model import Outcome, Stage, State

pytestmark = pytest.mark.usefixtures("pipelining")


@pytest.mark.parametrize(
    ("reply", "queue_id"),
    [
        ("2.0.0 Ok: queued as 4fXyZ01abc", "4fXyZ01abc"),
        ("OK id=1rAbCd-0000Xy-2Z", "1rAbCd-0000Xy-2Z"),
        ("2.0.0 4BN0x123 Message accepted for delivery", "4BN0x123"),
        ("2.6.0 <x@y.example> [InternalId=123456789, Hostname=a.example] Queued mail for delivery", "123456789"),
        ("2.0.0 OK  1700000000 ab12cd34-20020a17.5 - gsmtp", "ab12cd34-20020a17.5"),
        ("ok 1700000000 qp 12345", "12345"),
        ("Ok 0102018c1234abcd-1a2b-000000", "0102018c1234abcd-1a2b-000000"),
        ("Message Queued (8F2A-11.1)", "8F2A-11.1"),
        ("2.0.0 Ok", None),
        ("thank you", None),
    ],
)
def test_send_queue_id(reply: str, queue_id: str | None) -> None:
    """The relay's own name for the message, in the dialects of the common relays."""
    outcome, _ = send(times(1, "dot", Action(text=reply, code=250)))
    assert (outcome.state, outcome.queue_id) == (State.SENT, queue_id)


@pytest.mark.parametrize(
    "text",
    [
        "5.1.1 <ada@example.org>: no such user",
        "5.1.1 ADA@EXAMPLE.ORG unknown, ask postmaster@example.net",
        "5.1.1 see https://help.example/?p=ada%40example.org for ada@example.org",
        "5.1.1 user\nada@example.org\n[mailbox:ada+x@sub.example.org]",
    ],
)
def test_send_reply_without_addresses(text: str) -> None:
    """Replies are kept in the ledger; addresses are not."""
    outcome, _ = send(answers("rcpt", 550, text))
    assert "<address>" in outcome.reply
    assert "@" not in outcome.reply
    assert "ada" not in outcome.reply.lower()
    assert outcome.reply.startswith("5.1.1 ")


def test_send_reply_with_an_odd_recipient() -> None:
    """An address that a pattern would cut in the middle is known to be one."""
    envelope = Envelope(sender="noreply@example.org", recipient="o'brien@example.org", data=DATA)
    outcome, _ = send(answers("rcpt", 550, "5.1.1 O'Brien@example.org unknown"), envelope)
    assert outcome.reply == "5.1.1 <address> unknown"


@pytest.mark.parametrize(
    ("stage", "code"), [("rcpt", 450), ("rcpt", 550), ("data", 550), ("dot", 450), ("dot", 550), ("dot", 250)]
)
@pytest.mark.parametrize(
    "text",
    [
        "5.1.1 ada.lovelace... User unknown",
        "5.1.1 mailbox ada.lovelace is closed to you",
        "5.1.1 ADA.LOVELACE@ example.org",
        "5.1.1 ada.lovelace+40example.org",
    ],
)
def test_send_reply_without_the_bare_name(stage: str, code: int, text: str) -> None:
    """The name before the @ is as good as the address, at every stage."""
    text = text.replace("5.1.1", f"{code // 100}.1.1")
    envelope = Envelope(sender="noreply@example.org", recipient="ada.lovelace@example.org", data=DATA)
    outcome, _ = send(answers(stage, code, text), envelope)
    assert outcome.enhanced == f"{code // 100}.1.1"
    assert "lovelace" not in outcome.reply.lower()
    assert ("<address>" in outcome.reply) == (code != 250)  # of a yes only the queue id is kept


@pytest.mark.parametrize("name", ["2.0.0", "queued", "4fxyz01abd"])
def test_send_queue_id_of_an_odd_recipient(name: str) -> None:
    """A name that looks like a part of the answer hides neither its code nor its id."""
    envelope = Envelope(sender="noreply@example.org", recipient=f"{name}@example.org", data=DATA)
    outcome, _ = send(times(1, "dot", Action(text="2.0.0 Ok: queued as 4fXyZ01abc", code=250)), envelope)
    assert (outcome.state, outcome.enhanced, outcome.queue_id) == (State.SENT, "2.0.0", "4fXyZ01abc")


@pytest.mark.parametrize(
    ("action", "said"), [(Action(drip=0.05), "no answer in time"), (Action(endless=True), "endless")]
)
@pytest.mark.parametrize("stage", UP_TO_DOT)
def test_send_answer_that_does_not_end(stage: str, action: Action, said: str) -> None:
    """Each octet comes in time, the answer never does."""
    with (
        Smtpd(script=times(2, stage, action)) as server,
        connect(server, command_timeout=0.3) as connection,
        pytest.raises(RelayError, match=rf"{said}.* at {stage.upper()}") as caught,
    ):
        connection.send(ENVELOPE)
    assert caught.value.may_pass
    assert server.accepted == []


@pytest.mark.parametrize(
    ("action", "said"), [(Action(drip=0.05), "no answer in time"), (Action(endless=True), "endless answer")]
)
def test_send_answer_to_the_dot_that_does_not_end(action: Action, said: str) -> None:
    """It has the message, and nobody can tell what became of it."""
    outcome, _ = send(times(1, "dot", action), dot_timeout=0.3)
    assert outcome == Outcome(state=State.UNKNOWN, stage=Stage.DOT, reply=f"{said} after the final dot")


def test_send_reply_without_addresses_in_an_error() -> None:
    """Nor do they reach the Dagster UI."""
    script = times(1, "rcpt", Action(code=550, text="5.7.1 <ada@example.org>: relay access denied"))
    with Smtpd(script=script) as server, connect(server) as connection:
        said = connection.explain(connection.send(ENVELOPE))
    assert "5.7.1 <address>: relay access denied at RCPT TO" in said
    assert "ada" not in said
