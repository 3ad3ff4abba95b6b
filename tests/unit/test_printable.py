"""What others have chosen never commands a terminal."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from token_pipelines.cli import output
from token_pipelines.errors import LedgerError
from token_pipelines.model import UnreadableRow
from token_pipelines.printable import printable, printable_lines

HOSTILE = {
    "colour": "\x1b[31mred",
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;http://evil.example\x07click",
    "C1": "\x9b31mred",
    "backspace": "abc\x08\x08\x08xyz",
    "return": "abc\rxyz",
    "bidi": "gnp.\u202eexe",
    "isolate": "\u2066a\u2069",
    "invisible": "a\u200bb\ufeffc",
    "separator": "a\u2028b",
    "surrogate": "a\ud800",
    "delete": "a\x7f",
}
MARKUP = ["[/]", "[link=http://evil.example]x[/link]", "[red]x", "[bold", "\\[", ":smiley:"]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_printable_shows_what_cannot_be_seen(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert shown == text.encode("unicode_escape").decode()


@given(st.text(st.characters(exclude_categories=())))
def test_printable_any_text(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert not any(unicodedata.category(each) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for each in shown)
    assert shown == text or not text.isprintable()
    assert printable(shown) == shown
    assert printable_lines(text).split("\n") == [printable(line) for line in text.split("\n")]


@pytest.mark.parametrize("text", ["4711", "Zoë", "用户", "a b", "e\u0301", "<a&b>", *MARKUP])
def test_printable_leaves_what_can_be_seen(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("text", [*HOSTILE.values(), *MARKUP])
@pytest.mark.parametrize("where", ["table", "title", "say", "error"])
def test_commands_print_what_others_have_chosen(
    text: str, where: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In cells, in titles, in lines, in errors; on a terminal, where Rich would make colours and links."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    table = Table(title=text if where == "title" else None)
    table.add_column("Recipient", no_wrap=True, overflow="fold")
    table.add_row(text if where == "table" else "4711")
    if where in {"table", "title"}:
        output.print_table(table)
    elif where == "say":
        output.say(f"token {text}")
    else:
        output.say(LedgerError(f"row {text} is wrong"), err=True)
    said = "".join(capsys.readouterr())
    if where != "title":  # a narrow table breaks it over several lines
        assert printable(text) in said
    assert "\x1b]" not in said
    assert "\x1b[31m" not in said
    assert not set(said) & set("\x07\x08\r\x7f\x9b\u202e\u2066\u2069\u200b\ufeff\u2028\ud800")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_errors_and_named_rows_are_printable(text: str) -> None:
    """They go into log lines and into Dagster's failures."""
    assert str(LedgerError(f"row {text} is wrong")) == f"row {printable(text)} is wrong"
    assert str(UnreadableRow(text, "scopes")) == f"token_id {printable(text)}: scopes"


def test_every_command_prints_through_one_function() -> None:
    """A new command that calls click.echo would print what others have chosen as it is."""
    for module in Path(output.__file__).parent.glob("*.py"):
        if module.name != "output.py":
            assert "click.echo(" not in module.read_text(encoding="utf-8"), module.name
