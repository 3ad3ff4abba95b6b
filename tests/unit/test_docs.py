"""Documents are checked, or deleted."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from token_pipelines.cli.main import COMMANDS
from token_pipelines.config import Config

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "configuration.md"
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def keys(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Give every key that a config may hold, levels joined by dots; a list's items stand under the list's name."""
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        kinds = (field.annotation, *get_args(field.annotation))
        section = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if section is None:
            yield key
        else:
            yield from keys(section, f"{key}.")


def documented() -> list[str]:
    """The keys that have a line in the reference's tables."""
    return re.findall(r"^\| `([a-z0-9_.]+)` \|", REFERENCE.read_text(encoding="utf-8"), re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """The fragments that GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", document.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_keys_walks_into_sections_lists_and_aliases() -> None:
    assert {"source.url", "tiers.before", "email.from", "email.links.manage", "smtp.password"} <= set(keys())


def test_every_config_key_is_documented_once_and_no_other() -> None:
    assert sorted(documented()) == sorted(keys())


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_resolves(document: Path) -> None:
    broken = []
    for target in LINK.findall(FENCE.sub("", document.read_text(encoding="utf-8"))):
        if re.match(r"[a-z][a-z+.-]*:", target):
            continue
        file, _, fragment = target.partition("#")
        found = (document.parent / file).resolve() if file else document
        if not found.exists() or (fragment and fragment not in anchors(found)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_row_of_a_table_has_as_many_cells_as_its_heading(document: Path) -> None:
    """A row that was cut in two once stood in the reference for months."""
    odd = []
    cells = 0
    for line in FENCE.sub("", document.read_text(encoding="utf-8")).splitlines():
        found = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        cells = found and (cells or found)
        odd += [line] if found != cells else []
    assert odd == []


@pytest.mark.parametrize("picture", sorted((ROOT / "docs").rglob("*.png")), ids=lambda path: path.name)
def test_pictures_are_small(picture: Path) -> None:
    assert picture.stat().st_size < 100_000


def test_figures_of_the_performance_page_are_those_of_the_last_bench() -> None:
    kept = json.loads((ROOT / "bench" / "results" / "latest.json").read_text(encoding="utf-8"))["figures"]
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\| `([a-z0-9_.]+)` \| ([0-9.,]+) \|", page, re.MULTILINE))
    assert shown == {name: f"{value:,.2f}" for name, value in kept.items()}


def test_every_command_has_a_row_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `token-pipelines ([a-z-]+)", readme, re.MULTILINE))
    assert rows == set(COMMANDS)


def test_every_module_has_a_row_in_the_architecture_page_in_the_order_of_the_layers() -> None:
    """`make lint` checks the layers; the page shows them in the same order."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("## Where things are")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    rows = [{name.removesuffix("/").removesuffix(".py") for name in re.findall(r"`([^`]+)`", cell)} for cell in cells]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    floor = {name: number for number, layer in enumerate(layers) for name in layer.split(" | ")}
    assert sorted(name for row in rows for name in row) == sorted(floor)
    tops = [min(floor[name] for name in row) for row in rows]
    assert tops == sorted(tops)


def test_every_path_in_a_document_on_the_code_exists() -> None:
    """Paths in backticks are relative to the repository, or to the package."""
    missing = []
    for document in ("CONTRIBUTING.md", "docs/architecture.md", "docs/delivery.md"):
        for path in re.findall(r"`([\w/.-]+(?:\.py|/))`", (ROOT / document).read_text(encoding="utf-8")):
            places = (ROOT / path, ROOT / "token_pipelines" / path, ROOT / "token_pipelines" / "delivery" / path)
            missing += [] if any(place.exists() for place in places) else [path]
    assert missing == []
