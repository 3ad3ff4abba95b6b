"""What a message tells an operator to read, to set or to run exists."""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_args

import click
import pytest
from pydantic import BaseModel

from token_pipelines.cli.main import COMMANDS
from token_pipelines.config import Config
from token_pipelines.config.environment import OTHERS, variable

ROOT = Path(__file__).parents[2]
FILLED = "\0"
"""Stands for what an f-string fills in."""

FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
PAGE = re.compile(r"\bdocs/[\w./-]*\w(?:#[\w-]+)?")
COMMAND = re.compile(rf"token-pipelines ([a-z][a-z-]*)((?:[ {FILLED}]+[\w{FILLED}-]+)*)")
VARIABLE = re.compile(r"\b(?:TOKEN_PIPELINES|DAGSTER)_\w+")
OF_DAGSTER = {"DAGSTER_HOME", "DAGSTER_POSTGRES_URL"}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
OF_OTHERS = {"--host", "--workspace"}
"""Options of Dagster's own commands, which the demo starts."""

KEY = re.compile(rf"(?<![\w./@{{-])(?:{'|'.join(Config.model_fields)})(?:\.[a-z_]+)+(?![\w@/:(-])")
NO_KEYS = re.compile(r"\.(sql|py|yaml|html|txt|example|log|org)\b|^email\.\w+$")


def messages() -> Iterator[tuple[str, str]]:
    """Every string of the product's code that is no docstring, and the file that it is in."""
    for path in sorted((ROOT / "token_pipelines").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = [node for node in ast.walk(tree) if not isinstance(node, ast.Expr)]
        children = [child for node in nodes for child in ast.iter_child_nodes(node)]
        within = {id(part) for node in children if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in children:
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else FILLED for part in node.values)
                yield path.name, "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in within:
                yield path.name, node.value


WORDS_AT_LEAST = 3
"""Shorter strings are names and arguments."""

MESSAGES = [each for each in messages() if len(each[1].split()) >= WORDS_AT_LEAST and "<html" not in each[1]]


def keys(model: type[BaseModel] = Config, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every section and key, as the names that lead to it."""
    for name, field in model.model_fields.items():
        key = (*above, field.alias or name)
        yield key
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from keys(kind, key)


KEYS = {".".join(key) for key in keys()} | {key[0] for key in keys()}
VARIABLES = {variable(*key) for key in keys()} | OTHERS | OF_DAGSTER


def command(name: str) -> click.Command:
    found: click.Command = getattr(
        import_module(f"token_pipelines.cli.{name.replace('-', '_')}"), name.replace("-", "_")
    )
    return found


def options(one: click.Command) -> set[str]:
    own = {option for parameter in one.params for option in parameter.opts if option.startswith("--")}
    below = [options(other) for other in one.commands.values()] if isinstance(one, click.Group) else []
    return own.union({"--help"}, *below)


ALL_OPTIONS = set().union(*(options(command(name)) for name in COMMANDS)) | OF_OTHERS


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", document.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def wrong(text: str) -> list[str]:
    """What a message names and that does not exist."""
    return [
        *(page for page in PAGE.findall(text) if not _exists(page)),
        *(name for name in VARIABLE.findall(text) if name.rstrip("_") not in VARIABLES and not name.endswith("_")),
        *(option for option in OPTION.findall(text) if option not in ALL_OPTIONS),
        *(key for key in KEY.findall(text) if key not in KEYS and not NO_KEYS.search(key)),
        *(found.group() for found in COMMAND.finditer(text) if not _is_command(found)),
    ]


def _exists(page: str) -> bool:
    file, _, anchor = page.partition("#")
    path = ROOT / file
    return path.exists() and (not anchor or anchor in anchors(path))


def _is_command(found: re.Match[str]) -> bool:
    if found[1] not in COMMANDS:
        return False
    one = command(found[1])
    words = found[2].replace(FILLED, " ").split()
    if isinstance(one, click.Group) and words and not words[0].startswith("-"):
        if words[0] not in one.commands:
            return False
        one = one.commands[words[0]]
    return {word for word in words if word.startswith("--")} <= options(one)


def test_every_message_names_only_what_exists() -> None:
    assert [(file, name) for file, text in MESSAGES for name in wrong(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        "docs/failures.md#the-moon has the rights",
        "look into docs/moon.md",
        "set TOKEN_PIPELINES__SMTP__PASSPORT",
        "set TOKEN_PIPELINES_SMTP",
        "raise source.patience",
        "run `token-pipelines moon`",
        "run `token-pipelines suppress moon`",
        "run `token-pipelines history --approve-volume`",
        "run it with --moon",
    ],
)
def test_wrong_finds_a_cure_that_leads_nowhere(text: str) -> None:
    assert wrong(text) != []


@pytest.mark.parametrize(
    "text",
    [
        "docs/failures.md#a-run-stops, docs/sources",
        "set TOKEN_PIPELINES__SMTP__PASSWORD, TOKEN_PIPELINES_CONFIG or DAGSTER_HOME",
        "raise source.deadline or email.links.manage",
        f"`token-pipelines run{FILLED} --approve-volume`, `token-pipelines suppress list`",
    ],
)
def test_wrong_passes_what_exists(text: str) -> None:
    assert wrong(text) == []


def test_page_of_the_rights_has_what_was_looked_for() -> None:
    """The message on a refused access points to it."""
    [page] = {found for _, text in MESSAGES for found in PAGE.findall(text) if "rights that are needed" in text}
    section = (ROOT / page.partition("#")[0]).read_text(encoding="utf-8").partition("## Rights")[2]
    for right in ("`CREATE` on the database", "`CREATE` on the schema `public`", "`SELECT`"):
        assert right in section
