"""Random histories of a relay that works or returns everything, with dead mailboxes, and of readings at random times.

Whatever the order of the reports: nobody living is failed or suppressed in the end, and the dead of a day on which the
relay worked are.
"""

import random
import uuid
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from token_pipelines.feedback.bounces.belief import is_believed
from token_pipelines.ledger.bounces import Bounce
from token_pipelines.ledger.ledger import Ledger

START = datetime(2026, 11, 20, 9, tzinfo=UTC)
DAY = timedelta(days=1)

_NOTICE = text(
    "INSERT INTO token_pipelines.notices"
    " (notice_id, day, mode, tier, recipient_id, state, message_id, planned_by, planned_at)"
    " VALUES (:notice_id, :at, 'live', 'week', :who, 'planned', '<x>', 'p', :at)"
)
_SEND = text(
    "WITH mine AS (UPDATE token_pipelines.notices SET state = 'sent', sent_at = :at"
    " WHERE state IN ('planned', 'deferred') RETURNING notice_id, recipient_id), logged AS ("
    "INSERT INTO token_pipelines.attempts (notice_id, at, run_id, state, stage, code, address_hash)"
    " SELECT notice_id, :at, :run, 'sent', 'dot', 250, convert_to(recipient_id, 'UTF8') FROM mine)"
    " SELECT notice_id::text, recipient_id FROM mine"
)


@st.composite
def days(draw: st.DrawFn) -> list[tuple[bool, list[bool], list[int]]]:
    """Each day: whether the relay works, which new people are dead, and after how many reports a reading ends."""
    return draw(
        st.lists(
            st.tuples(
                st.booleans(),
                st.lists(st.booleans(), min_size=1, max_size=6),
                st.lists(st.integers(1, 5), max_size=4),
            ),
            min_size=1,
            max_size=5,
        )
    )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(days(), st.randoms(use_true_random=False))
def test_nobody_living_is_failed_and_the_dead_are(
    ledger: Ledger, story: list[tuple[bool, list[bool], list[int]]], rng: random.Random
) -> None:
    with ledger.engine.begin() as connection:
        connection.execute(text("TRUNCATE token_pipelines.notices, token_pipelines.suppressions CASCADE"))
    dead: set[str] = set()
    proven: set[str] = set()
    at = START
    for number, (works, people, sizes) in enumerate(story):
        at = START + number * DAY
        with ledger.engine.begin() as connection:
            for position, is_dead in enumerate(people):
                who = f"{number}-{position}"
                dead |= {who} if is_dead else set()
                connection.execute(_NOTICE, {"notice_id": str(uuid.uuid4()), "at": at, "who": who})
            told = connection.execute(_SEND, {"at": at, "run": f"run-{number}"}).all()
        returned = [(notice_id, who) for notice_id, who in told if not works or who in dead]
        if works and 2 * len(returned) <= len(told):
            proven |= {who for _, who in returned}
        rng.shuffle(returned)
        for size in [*sizes, len(returned)]:
            for notice_id, _ in returned[:size]:
                ledger.bounces.keep(
                    Bounce(
                        digest=uuid.uuid4().bytes,
                        notice_id=notice_id,
                        at=at,
                        enhanced="5.1.2",
                        address_is_dead=True,
                        proven=True,
                    )
                )
            del returned[:size]
            read(ledger, at)
    with ledger.engine.connect() as connection:
        failed = set(
            connection.scalars(text("SELECT recipient_id FROM token_pipelines.notices WHERE state = 'failed'"))
        )
    suppressed = {entry.address_hash.decode() for entry in ledger.suppressions.listed()}
    assert failed <= dead
    assert suppressed == failed
    assert proven <= failed


def read(ledger: Ledger, at: datetime) -> None:
    """What the end of a reading does."""
    evidence = ledger.bounces.evidence(now=at)
    verdicts = {one.digest: is_believed(one) for one in evidence if one.believed is not is_believed(one)}
    ledger.bounces.carry_out(verdicts, at=at)
