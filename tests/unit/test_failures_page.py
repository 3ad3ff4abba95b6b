"""The messages that docs/failures.md quotes are the ones that the code writes."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from token_pipelines.model import Reason

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "failures.md").read_text(encoding="utf-8")
PLACEHOLDER = "\0"
"""Stands for what an f-string fills in."""


def quoted() -> list[str]:
    """What the page quotes: the code in the first column of its tables on messages, and elsewhere what has a …."""
    tables = re.findall(r"^\| you read \|.*?(?=\n\n)", PAGE, re.MULTILINE | re.DOTALL)
    cells = [line.split("|")[1] for table in tables for line in table.splitlines()[2:]]
    spans = [span for cell in cells for span in re.findall(r"`([^`]+)`", cell)]
    return list(dict.fromkeys(spans + [span for span in re.findall(r"`([^`\n]+)`", PAGE) if "…" in span]))


@cache
def messages() -> tuple[str, ...]:
    """Every string of the product's code, a placeholder for each value that it is filled with."""
    found: list[str] = []
    for path in (ROOT / "token_pipelines").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else PLACEHOLDER for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"\{\w*\}|%[ds]", PLACEHOLDER, node.value))
    return tuple(found)


def occurs(fragment: str) -> bool:
    """Whether words that follow each other on the page do so in a message; at most half may be filled in."""
    words = fragment.split()
    pattern = re.compile(r"\s+".join(rf"(?:{re.escape(word)}|\S*{PLACEHOLDER}\S*)" for word in words))
    return any(
        found.group().count(PLACEHOLDER) <= len(words) // 2
        for message in messages()
        for found in pattern.finditer(message)
    )


@pytest.mark.parametrize("quote", quoted())
def test_quoted_message_is_written_by_the_code(quote: str) -> None:
    assert [part for part in map(str.strip, quote.split("…")) if part and not occurs(part)] == []


def test_quoted_finds_the_tables() -> None:
    assert "… holds several pipelines" in quoted()


def test_occurs_is_false_for_words_that_no_message_has() -> None:
    assert not occurs("The moon cannot be reached")


def test_reasons_of_the_page_are_those_of_the_product() -> None:
    table = PAGE.split("\n| reason | meaning |\n")[1]
    documented = [reason for line in table.splitlines()[1:] for reason in re.findall(r"`(\w+)`", line.split("|")[1])]
    assert sorted(documented) == sorted(Reason)
