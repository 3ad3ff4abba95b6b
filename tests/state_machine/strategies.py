"""What a story is drawn from: ladders of tiers, expiries, pauses, changes, places to stop at."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from hypothesis import strategies as st
from state_machine.truth import Answer

from token_pipelines.tiers import After, Before, Tier

BEGINNING: Final = datetime(2026, 10, 20, 7, tzinfo=UTC)  # five days before Berlin's clocks fold
PEOPLE: Final = ("1", "2")
TOKENS_AT_MOST: Final = 3
SECOND: Final = timedelta(seconds=1)
MICRO: Final = timedelta(microseconds=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
STALL: Final = timedelta(minutes=30)
"""A process that stood longer than this between its read of the tokens and the socket may be late: see `in_order`."""


def _before(name: str, days: int) -> Tier:
    return Before(name=name, before=days * DAY)


def _after(name: str, days: int, within: int) -> Tier:
    return After(name=name, after=days * DAY, within=within * DAY)


LADDERS: Final = (
    (_after("expired", 0, 3), _before("day", 1), _before("week", 7)),
    (_after("expired", 0, 3), _before("day", 1), _before("three", 3), _before("week", 7)),  # one added
    (_after("gone", 0, 3), _before("last", 1), _before("seven", 7)),  # all renamed
    (_after("expired", 0, 3), _before("week", 7)),  # one removed
    (_after("expired", 1, 2), _before("day", 2), _before("week", 5)),  # all moved
    (_after("expired", 0, 3), _before("week", 1), _before("day", 7)),  # names exchanged
    (_before("day", 1), _before("week", 7), _before("month", 30)),  # none after the expiry, a longer one
    (_after("expired", 0, 1), _after("late", 2, 2), _before("day", 1)),  # two after the expiry, with a gap
)

LEADS: Final = (7, 1, 0, 8, 2, -1, -3, 3)
JITTERS: Final = (
    timedelta(0), MICRO, -MICRO, SECOND, -SECOND, HOUR, -HOUR, 10 * HOUR, 25 * HOUR, 35 * HOUR, 3 * DAY, -DAY,
)  # fmt: skip
LIFETIMES: Final = (90 * DAY, 90 * DAY, 90 * DAY, 90 * DAY, 7 * DAY, 7 * DAY + MICRO, 5 * DAY, HOUR)
PAUSES: Final = (timedelta(minutes=1), HOUR, 3 * HOUR, 12 * HOUR, DAY, 2 * DAY, 6 * DAY)
MOMENTS: Final = (timedelta(0), MICRO, -MICRO, SECOND)
DAYS_BACK: Final = (0, 0, 0, 1, 2, 5, 20, 45)

some = st.integers(0, 11)
"""An index, taken modulo whatever there is to choose from."""

Expiry = tuple[int, timedelta]
News = tuple[Expiry, timedelta, frozenset[str]]

people = st.sampled_from(PEOPLE)
expiries = st.tuples(st.sampled_from(LEADS), st.sampled_from(JITTERS))
lifetimes = st.sampled_from(LIFETIMES)
owners = st.frozensets(people, min_size=1)
answers = st.lists(st.sampled_from([*[Answer.SENT] * 3, *Answer, Answer.LOST_AFTER_ARRIVAL]), max_size=3)


places = st.one_of(
    st.tuples(st.sampled_from(("reading", "socket", "answered")), st.integers(1, 2)),
    st.tuples(st.just("transaction"), st.integers(1, 30)),
)
noticings = st.sampled_from(("orchestrator", "lease", "not yet"))


def _deed(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(name), *arguments)


issues = st.tuples(expiries, lifetimes, owners)
news = st.none() | issues
"""A token that was issued just before a run, or none: without any, a run has nothing to do."""

# One rule for all of these: a rule for each would leave a story little room for runs.
CHANGES: Final = st.one_of(
    _deed("revoke_or_undo", some),
    _deed("change_team", some, owners),
    _deed("delete", some),
    _deed("mark_as_the_older_job_did", some, st.sampled_from((timedelta(0), DAY, 5 * DAY))),
    _deed("change_address", people, st.integers(0, 2)),
    _deed("lose_address", people, st.sampled_from((None, " ", "no address"))),
    _deed("verify_or_undo", people),
    _deed("mute_or_undo", people),
    _deed("repair_everything"),
    _deed("repair_everything"),
    _deed("repair_everything"),
    _deed("change_tiers", st.sampled_from(LADDERS)),
    _deed("change_rollout", st.frozensets(people, max_size=2), st.sampled_from((100, 100, 0))),
    _deed("redirect_or_live"),
    _deed("resend_or_hold"),
    _deed("change_fuse", st.sampled_from((1000, 1000, 1, 2))),
    _deed("suppress", people),
    _deed("mark_notified", st.sampled_from((3 * DAY, DAY, timedelta(0)))),
    _deed("notice_the_dead"),
)
