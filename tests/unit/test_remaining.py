"""Times in words, one second on either side of each boundary."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from babel import Locale, localedata
from hypothesis import given
from hypothesis import strategies as st

from token_pipelines.mail.remaining import in_words, roughly

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
GERMAN = Locale("de")


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (SECOND, "less than an hour"),
        (HOUR - SECOND, "less than an hour"),
        (HOUR, "1 hour"),
        (2 * HOUR - SECOND, "1 hour"),
        (2 * HOUR, "2 hours"),
        (DAY - SECOND, "23 hours"),
        (DAY, "1 day"),
        (DAY + HOUR - SECOND, "1 day"),
        (DAY + HOUR, "1 day and 1 hour"),
        (2 * DAY - SECOND, "1 day and 23 hours"),
        (2 * DAY, "2 days"),
        (7 * DAY - SECOND, "6 days and 23 hours"),
        (7 * DAY, "7 days"),
        (7 * DAY + SECOND, "7 days"),
        (30 * DAY + 2 * HOUR, "30 days and 2 hours"),
        (timedelta(), "less than an hour ago"),
        (-SECOND, "less than an hour ago"),
        (-HOUR + SECOND, "less than an hour ago"),
        (-HOUR, "1 hour ago"),
        (-2 * HOUR - SECOND, "2 hours ago"),
        (-DAY, "1 day ago"),
        (-DAY - 5 * HOUR, "1 day and 5 hours ago"),
    ],
)
def test_in_words_at_boundary(left: timedelta, words: str) -> None:
    """Rounded down, in both directions."""
    assert in_words(NOW + left, NOW) == words


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (23 * HOUR, "23 hours"),
        (DAY + 23 * HOUR, "1 day and 23 hours"),
        (2 * DAY - SECOND, "1 day and 23 hours"),
        (2 * DAY + 5 * HOUR, "2 days"),
        (7 * DAY - SECOND, "6 days"),
        (-3 * DAY - HOUR, "3 days ago"),
    ],
)
def test_roughly_at_boundary(left: timedelta, words: str) -> None:
    """Whole days from two days on."""
    assert roughly(NOW + left, NOW) == words


@given(st.timedeltas(timedelta(microseconds=1), timedelta(days=400)))
def test_in_words_never_overstates(left: timedelta) -> None:
    """What the words promise is there, and less than an hour more."""
    words = in_words(NOW + left, NOW).replace("less than an hour", "0 hours").split()
    said = {words[i + 1].rstrip("s"): int(words[i]) for i in range(0, len(words), 3)}
    promised = timedelta(days=said.get("day", 0), hours=said.get("hour", 0))
    assert promised <= left < promised + HOUR


def test_in_words_over_a_change_of_clocks() -> None:
    """Instants of one zone are subtracted as instants, not by the wall clock."""
    berlin = ZoneInfo("Europe/Berlin")
    before, after = datetime(2026, 10, 25, 1, tzinfo=berlin), datetime(2026, 10, 25, 4, tzinfo=berlin)
    assert in_words(after, before) == "4 hours"


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (timedelta(microseconds=1), "0 Sekunden"),
        (59 * SECOND, "59 Sekunden"),
        (60 * SECOND, "1 Minute"),
        (HOUR - SECOND, "59 Minuten"),
        (HOUR, "1 Stunde"),
        (DAY - SECOND, "23 Stunden"),
        (DAY, "1 Tag"),
        (2 * DAY - SECOND, "1 Tag und 23 Stunden"),
        (7 * DAY - SECOND, "6 Tage und 23 Stunden"),
        (365 * DAY, "365 Tage"),
        (timedelta(), "vor 1 Sekunde"),
        (-HOUR + SECOND, "vor 59 Minuten"),
        (-2 * HOUR, "vor 2 Stunden"),
        (-DAY - 5 * HOUR, "vor 1 Tag"),
        (-3 * DAY, "vor 3 Tagen"),
    ],
)
def test_in_words_in_german(left: timedelta, words: str) -> None:
    """Rounded down here too; what is past has the case that its preposition wants."""
    assert in_words(NOW + left, NOW, GERMAN) == words


@pytest.mark.parametrize(
    ("left", "words"),
    [(DAY + 23 * HOUR, "1 Tag und 23 Stunden"), (2 * DAY + 5 * HOUR, "2 Tage"), (7 * DAY - SECOND, "6 Tage")],
)
def test_roughly_in_german(left: timedelta, words: str) -> None:
    assert roughly(NOW + left, NOW, GERMAN) == words


@given(st.timedeltas(timedelta(microseconds=1), timedelta(days=400)))
def test_in_words_in_german_never_overstates(left: timedelta) -> None:
    """What the words promise is there, and less than one of their smallest unit more."""
    sizes = {"Tag": DAY, "Tage": DAY, "Stunde": HOUR, "Stunden": HOUR, "Minute": MINUTE, "Minuten": MINUTE}
    sizes |= {"Sekunde": SECOND, "Sekunden": SECOND}
    parts = [part.split() for part in in_words(NOW + left, NOW, GERMAN).split(" und ")]
    promised = sum((int(number) * sizes[unit] for number, unit in parts), timedelta())
    assert promised <= left < promised + min(HOUR, sizes[parts[-1][1]])


def test_in_words_in_every_language() -> None:
    """Whatever Babel knows can be translated to."""
    for language in localedata.locale_identifiers():
        locale = Locale.parse(language)
        for left in (30 * SECOND, HOUR, 7 * DAY + 5 * HOUR, -HOUR, -7 * DAY):
            words = in_words(NOW + left, NOW, locale)
            assert words, language
            assert "{" not in words
