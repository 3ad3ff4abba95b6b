"""The tag in the envelope sender: it names a notice, and only the ledger's key makes it."""

import re
import uuid

from hypothesis import given
from hypothesis import strategies as st

from token_pipelines.bounce_address import TAG_LENGTH, proven, tag, tags_in

KEYS = st.binary(min_size=32, max_size=32)


@given(st.uuids(), KEYS)
def test_tag_proves_its_notice(notice: uuid.UUID, key: bytes) -> None:
    """Also when a mail system has changed its case."""
    made = tag(str(notice), key)
    assert re.fullmatch(rf"[a-z2-7]{{{TAG_LENGTH}}}", made)
    assert proven(made, key) == str(notice)
    assert tags_in(f"Bounces+{made.upper()}@example.org") == [made]


@given(st.uuids(), KEYS, KEYS)
def test_tag_of_another_key_proves_nothing(notice: uuid.UUID, key: bytes, other: bytes) -> None:
    assert key == other or proven(tag(str(notice), key), other) is None


@given(st.uuids(), st.uuids(), KEYS)
def test_tag_with_another_id_proves_nothing(notice: uuid.UUID, other: uuid.UUID, key: bytes) -> None:
    made, its = tag(str(notice), key), tag(str(other), key)
    assert notice == other or proven(its[:25] + made[25:], key) is None


@given(st.from_regex(rf"[a-z2-7]{{{TAG_LENGTH}}}", fullmatch=True), KEYS)
def test_tag_that_was_guessed_proves_nothing(guessed: str, key: bytes) -> None:
    assert proven(guessed, key) is None


def test_tags_in_text_of_other_lengths_and_letters() -> None:
    """A Kelvin sign is no k."""
    exact = "k" * TAG_LENGTH
    assert tags_in(f"{exact} x{exact} {exact[1:]} \u212a{exact[1:]} bounces+{exact}@a, SRS0=x=y=bounces+{exact}@b") == (
        [exact] * 3
    )
