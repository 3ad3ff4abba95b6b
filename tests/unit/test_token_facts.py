"""The tables of token facts and of reasons: each entry is whole, and the documents say the same."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from token_pipelines.model import RECIPIENT_REASONS, Reason
from token_pipelines.token_facts import DTYPES, FACTS, TOKEN_COLUMNS, Kind, Presence

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
DOCS = Path(__file__).parents[2] / "docs"


def table_below(heading: str, document: Path) -> list[list[str]]:
    """Give the cells of the first table below a heading, without the table's own."""
    _, _, below = document.read_text(encoding="utf-8").partition(f"\n{heading}\n")
    table = re.search(r"(?:^\|.*\n)+", below or document.read_text(encoding="utf-8"), re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


def test_reason_is_found_by_its_name_and_written_as_it() -> None:
    assert Reason("muted") is Reason.MUTED
    assert [str(reason) for reason in Reason] == [reason.name.lower() for reason in Reason]


def test_every_reason_is_documented_with_its_meaning_in_its_order() -> None:
    rows = table_below("## Reasons", DOCS / "failures.md")
    assert [name for name, _ in rows] == [f"`{reason}`" for reason in Reason]
    strays = [name for (name, text), reason in zip(rows, Reason, strict=True) if not text.startswith(reason.meaning)]
    assert strays == []
    assert [reason for reason in Reason if not reason.meaning] == []


def test_recipient_reasons_are_documented_as_the_last_ones() -> None:
    assert tuple(Reason)[-len(RECIPIENT_REASONS) :] == RECIPIENT_REASONS
    page = (DOCS / "failures.md").read_text(encoding="utf-8")
    assert f"From `{RECIPIENT_REASONS[0]}` on, the reason lies\nwith the recipient" in page


def test_every_column_is_documented_in_its_order_with_whether_it_is_required() -> None:
    rows = table_below("", DOCS / "sources" / "README.md")
    documented = [
        (name, presence.split(",")[0].split()[0]) for names, presence, _ in rows for name in names.split(", ")
    ]
    returned = [fact for fact in FACTS if fact.presence is not Presence.DERIVED]
    assert documented == [(f"`{fact.column}`", fact.presence.name.lower()) for fact in returned]


def test_optional_facts_say_what_their_absence_means() -> None:
    assert [fact.column for fact in FACTS if bool(fact.without) != (fact.presence is Presence.OPTIONAL)] == []
    flags = [fact for fact in FACTS if fact.kind is Kind.FLAG and fact.presence is Presence.OPTIONAL]
    assert [fact.column for fact in flags if fact.absent is None] == []


def test_absent_column_leads_to_no_reason() -> None:
    """A column that the operator's query does not return must not keep anybody from being told."""
    blocking = []
    for fact in FACTS:
        if fact.holds is not None and fact.presence is Presence.OPTIONAL:
            absent = pd.Series([fact.absent], dtype=DTYPES[fact.kind])
            blocking += [fact.column] if fact.holds(absent, NOW).any() else []
    assert blocking == []


def test_reasons_and_what_they_hold_for_go_together() -> None:
    assert [fact.column for fact in FACTS if (fact.reason is None) != (fact.holds is None)] == []
    assert [fact.column for fact in FACTS if fact.reason is not None and not fact.decides] == []


def test_columns_of_the_policy_are_pinned() -> None:
    """They are the columns of each day's parquet file and of the asset: a change is seen by operators."""
    instant = DTYPES[Kind.INSTANT]
    assert {
        "token_id": "str",
        "recipient_id": "str",
        "created_at": instant,
        "expires_at": instant,
        "unreadable": "str",
        "has_address": "bool",
        "email_verified": "bool",
        "revoked": "bool",
        "muted": "bool",
        "replaced_at": instant,
        "last_notified_at": instant,
    } == TOKEN_COLUMNS
