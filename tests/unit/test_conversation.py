"""One connection's side of SMTP, by sending it what it wants: no socket, no server."""

from collections.abc import Sequence

import pytest

from token_pipelines.envelope import Envelope
from token_pipelines.model import Outcome, Stage, State
from token_pipelines.smtp.answers import Lost, RelayTroubleError
from token_pipelines.smtp.conversation import Conversation, Offers, Step, Wants, converse

OK = (250, b"2.0.0 Ok")
GO_AHEAD = (354, b"end with a dot")
QUEUED = (250, b"2.0.0 Ok: queued as Q1")
YES = (OK, OK, GO_AHEAD)
NO_SUCH_USER = (550, b"5.1.1 no such user")
CLOSING = (421, b"4.3.2 closing")
RSET_OK = (250, b"2.0.0 forgotten")


def to(name: str, data: bytes = b"Subject: hello\r\n\r\nhello\r\n") -> Envelope:
    return Envelope(sender="noreply@example.org", recipient=f"{name}@example.org", data=data)


def commands(name: str) -> bytes:
    return f"MAIL FROM:<noreply@example.org>\r\nRCPT TO:<{name}@example.org>\r\nDATA\r\n".encode()


class Talk:
    """A conversation, and what it has said."""

    def __init__(self, *, pipelining: bool = True, recycle_after: int = 100, smtputf8: bool = False) -> None:
        self.pipelining = pipelining
        self.said: list[bytes] = []
        offers = Offers(relay="relay:25", pipelining=pipelining, smtputf8=smtputf8)
        self.conversation: Conversation = converse(offers, self.said.append, recycle_after=recycle_after)

    def begin(self, envelope: Envelope) -> Step:
        """Start it, and give it a message; what it wants then."""
        assert next(self.conversation) is Wants.MESSAGE
        return self.give(envelope)

    def give(self, value: object) -> Step:
        return self.conversation.send(value)

    def hear(self, replies: Sequence[tuple[int, bytes]]) -> Step:
        """Give it these replies, each of which it must want; what it wants then."""
        step: Step = Wants.REPLY
        for reply in replies:
            assert step in {Wants.REPLY, Wants.DOT_REPLY}
            step = self.conversation.send(reply)
        return step

    def lose(self, *, unsaid: int = 0) -> Step:
        return self.conversation.throw(Lost(unsaid=unsaid))


@pytest.fixture(params=[True, False], ids=["pipelining", "lock-step"])
def talk(request: pytest.FixtureRequest) -> Talk:
    return Talk(pipelining=request.param)


def test_message_is_marked_after_the_go_ahead_and_before_its_text(talk: Talk) -> None:
    assert talk.begin(to("ada")) is Wants.REPLY
    assert talk.hear(YES) is Wants.MARK
    assert b"".join(talk.said) == commands("ada")
    step = talk.give(to("ada"))
    if step is Wants.FOLLOWING:
        step = talk.give(None)
    assert step is Wants.DOT_REPLY
    assert talk.said[-1] == b"Subject: hello\r\n\r\nhello\r\n.\r\n"
    outcome = talk.give(QUEUED)
    assert outcome == Outcome(state=State.SENT, stage=Stage.DOT, code=250, enhanced="2.0.0", reply="", queue_id="Q1")
    assert talk.give(None) is Wants.MESSAGE


def test_commands_go_in_one_write_or_one_by_one() -> None:
    for pipelining, writes in ((True, 1), (False, 3)):
        talk = Talk(pipelining=pipelining)
        talk.begin(to("ada"))
        talk.hear(YES)
        assert len(talk.said) == writes


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b".first\r\nlast", b"..first\r\nlast\r\n.\r\n"),
        (b"a\r\n.\r\n..b\r\n", b"a\r\n..\r\n...b\r\n.\r\n"),
    ],
)
def test_dots_are_doubled(talk: Talk, data: bytes, said: bytes) -> None:
    talk.begin(to("ada"))
    talk.hear(YES)
    if talk.give(to("ada", data)) is Wants.FOLLOWING:
        talk.give(None)
    assert talk.said[-1] == said


def test_message_that_was_written_again_is_the_one_that_is_said(talk: Talk) -> None:
    talk.begin(to("ada"))
    talk.hear(YES)
    if talk.give(to("ada", b"later\r\n")) is Wants.FOLLOWING:
        talk.give(None)
    assert talk.said[-1] == b"later\r\n.\r\n"


def test_following_message_is_offered_behind_the_dot_and_only_marked_in_its_turn() -> None:
    talk = Talk()
    talk.begin(to("ada"))
    talk.hear(YES)
    assert talk.give(to("ada")) is Wants.FOLLOWING
    assert talk.give(to("bob")) is Wants.DOT_REPLY
    assert talk.said[-1] == to("ada").data + b".\r\n" + commands("bob")
    assert isinstance(talk.give(QUEUED), Outcome)
    assert talk.give(None) is Wants.REPLY
    assert talk.hear(YES) is Wants.MARK
    assert len(talk.said) == 2, "its commands are not said twice"


def test_nothing_follows_without_pipelining_or_over_the_end_of_a_connection() -> None:
    for talk in (Talk(pipelining=False), Talk(recycle_after=1)):
        talk.begin(to("ada"))
        talk.hear(YES)
        assert talk.give(to("ada")) is Wants.DOT_REPLY
        talk.give(QUEUED)
    with pytest.raises(StopIteration):
        talk.give(None)


def test_following_message_that_the_relay_cannot_take_is_not_said_and_fails() -> None:
    talk = Talk()
    talk.begin(to("ada"))
    talk.hear(YES)
    talk.give(to("ada"))
    assert talk.give(to("j\u00f6rg")) is Wants.DOT_REPLY
    assert talk.said[-1] == to("ada").data + b".\r\n"
    assert isinstance(talk.give(QUEUED), Outcome)
    assert talk.give(None) == Outcome(state=State.FAILED, stage=Stage.RCPT, reply="the relay does not offer SMTPUTF8")
    assert talk.give(None) is Wants.MESSAGE


def test_conversation_ends_when_there_is_no_message(talk: Talk) -> None:
    next(talk.conversation)
    with pytest.raises(StopIteration):
        talk.give(None)
    assert talk.said == []


@pytest.mark.parametrize("stage", ["rcpt", "data"])
def test_refused_message_was_never_marked_and_the_next_one_begins_afresh(talk: Talk, stage: str) -> None:
    at = ["mail", "rcpt", "data"].index(stage)
    replies = [OK, OK, GO_AHEAD]
    replies[at] = NO_SUCH_USER
    if stage == "rcpt":
        replies[2] = (554, b"5.5.1 no valid recipients")
    assert talk.begin(to("ada")) is Wants.REPLY
    assert talk.hear(replies if talk.pipelining else replies[: at + 1]) is Wants.REPLY
    assert talk.said[-1] == b"RSET\r\n"
    outcome = talk.give(RSET_OK)
    assert isinstance(outcome, Outcome)
    assert (outcome.state, outcome.stage, outcome.address_is_dead) == (State.FAILED, Stage(stage), True)
    assert talk.give(None) is Wants.MESSAGE


def test_refused_recipient_and_data_taken_gets_a_lone_dot() -> None:
    talk = Talk()
    talk.begin(to("ada"))
    assert talk.hear([OK, NO_SUCH_USER, GO_AHEAD]) is Wants.REPLY
    assert talk.said[-1] == b".\r\n"
    assert isinstance(talk.give((554, b"no valid recipients")), Outcome)
    assert talk.give(None) is Wants.MESSAGE


@pytest.mark.parametrize("undone", [CLOSING, (500, b"what?"), (25, b"")])
def test_refusal_stands_when_it_cannot_be_undone(undone: tuple[int, bytes]) -> None:
    """And the connection is of no more use."""
    talk = Talk()
    talk.begin(to("ada"))
    talk.hear([OK, NO_SUCH_USER, (503, b"no")])
    assert isinstance(talk.give(undone), Outcome)
    with pytest.raises(Lost):
        talk.give(None)


@pytest.mark.parametrize(
    ("replies", "stage", "named"),
    [([], "MAIL FROM", False), ([OK], "RCPT TO", True), ([OK, OK], "DATA", True)],
)
def test_lost_before_the_mark_may_be_tried_again(
    talk: Talk, replies: list[tuple[int, bytes]], stage: str, *, named: bool
) -> None:
    talk.begin(to("ada"))
    talk.hear(replies)
    with pytest.raises(RelayTroubleError, match=rf"in trouble: connection lost at {stage}; look at its log") as caught:
        talk.lose()
    trouble = caught.value
    assert (trouble.try_again, trouble.may_pass) == (True, True)
    assert (trouble.outcome is not None) == named


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_closing_before_the_mark_may_be_tried_again(talk: Talk, stage: int) -> None:
    talk.begin(to("ada"))
    with pytest.raises(RelayTroubleError, match=r"it answered 421 4\.3\.2 closing at") as caught:
        talk.hear([*(OK, OK, GO_AHEAD)[:stage], CLOSING])
    assert caught.value.try_again
    at = (Stage.MAIL, Stage.RCPT, Stage.DATA)[stage]
    outcome = Outcome(state=State.DEFERRED, stage=at, code=421, enhanced="4.3.2", reply="4.3.2 closing")
    assert caught.value.outcome == (outcome if stage else None)


def test_lost_while_it_waits_for_the_mark(talk: Talk) -> None:
    """The relay hung up after its 354: nothing of it was said."""
    talk.begin(to("ada"))
    talk.hear(YES)
    with pytest.raises(RelayTroubleError, match="connection lost at DATA") as caught:
        talk.lose()
    assert caught.value.try_again


def said(talk: Talk, *, following: Envelope | None = None) -> None:
    talk.begin(to("ada"))
    talk.hear(YES)
    if talk.give(to("ada")) is Wants.FOLLOWING:
        talk.give(following)


@pytest.mark.parametrize("behind", [0, 1])
def test_lost_before_the_dot_is_out_is_safe_to_send_again(behind: int) -> None:
    """It was marked, so it is put off and not tried at once."""
    talk = Talk()
    said(talk, following=to("bob") if behind else None)
    unsaid = len(commands("bob")) * behind + 1
    with pytest.raises(RelayTroubleError, match="connection lost at DATA") as caught:
        talk.lose(unsaid=unsaid)
    assert not caught.value.try_again
    assert caught.value.outcome == Outcome(state=State.DEFERRED, stage=Stage.DATA, reply="connection lost")


@pytest.mark.parametrize("unsaid", [0, 3, "all"])
def test_lost_after_the_dot_leaves_doubt(unsaid: int | str) -> None:
    """Even where the commands behind it did not go out."""
    talk = Talk()
    said(talk, following=to("bob"))
    outcome = talk.lose(unsaid=len(commands("bob")) if unsaid == "all" else int(unsaid))
    assert outcome == Outcome(state=State.UNKNOWN, stage=Stage.DOT, reply="connection lost after the final dot")
    with pytest.raises(Lost):
        talk.give(None)


def test_closing_after_the_message_is_a_refusal() -> None:
    talk = Talk()
    said(talk, following=to("bob"))
    with pytest.raises(RelayTroubleError, match=r"421 4\.3\.2 closing at the end of the message") as caught:
        talk.give(CLOSING)
    assert not caught.value.try_again
    assert caught.value.outcome is not None
    assert (caught.value.outcome.state, caught.value.outcome.code) == (State.DEFERRED, 421)


@pytest.mark.parametrize("code", [25, 99, 100, 600, -1])
def test_senseless_answer_is_no_answer(talk: Talk, code: int) -> None:
    talk.begin(to("ada"))
    with pytest.raises(RelayTroubleError, match="connection lost at MAIL FROM"):
        talk.give((code, b""))


def test_senseless_answer_to_the_dot_leaves_doubt(talk: Talk) -> None:
    said(talk)
    outcome = talk.give((25, b""))
    assert isinstance(outcome, Outcome)
    assert outcome.state is State.UNKNOWN


def test_answer_to_the_dot_that_is_neither_yes_nor_no_leaves_doubt(talk: Talk) -> None:
    said(talk)
    outcome = talk.give((354, b"pardon"))
    assert isinstance(outcome, Outcome)
    assert (outcome.state, outcome.code) == (State.UNKNOWN, 354)
    with pytest.raises(Lost):
        talk.give(None)


@pytest.mark.parametrize(("code", "text"), [(550, b"5.1.8 bad sender"), (451, b"4.3.0 later"), (530, b"log in")])
def test_refused_sender_blames_nobody(talk: Talk, code: int, text: bytes) -> None:
    """The connection goes on: the next message may have another sender, or come at a better time."""
    talk.begin(to("ada"))
    rest = [(503, b"no"), (503, b"no"), RSET_OK] if talk.pipelining else [RSET_OK]
    outcome = talk.hear([(code, text), *rest])
    assert isinstance(outcome, Outcome)
    assert (outcome.state, outcome.stage, outcome.code) == (State.DEFERRED, Stage.MAIL, code)
    assert talk.give(None) is Wants.MESSAGE


@pytest.mark.parametrize("follows", [False, True])
def test_policy_refusal_after_the_message(*, follows: bool) -> None:
    """It puts this message off. The next one goes on, its commands said already or not."""
    talk = Talk()
    said(talk, following=to("bob") if follows else None)
    outcome = talk.give((554, b"5.7.9 DMARC"))
    assert isinstance(outcome, Outcome)
    assert (outcome.state, outcome.stage, outcome.code) == (State.DEFERRED, Stage.DOT, 554)
    assert talk.give(None) is (Wants.REPLY if follows else Wants.MESSAGE)


def test_forwarded_recipient_is_accepted() -> None:
    """251 is a yes (RFC 5321, 3.4)."""
    talk = Talk()
    talk.begin(to("ada"))
    assert talk.hear([OK, (251, b"2.1.5 will forward"), GO_AHEAD]) is Wants.MARK


def test_idle_connection_that_ends_has_no_message(talk: Talk) -> None:
    next(talk.conversation)
    with pytest.raises(Lost):
        talk.lose()
