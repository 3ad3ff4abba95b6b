"""Each language that we ship is whole: the same files as the default, and in each the same facts and markup."""

import re
from collections import Counter
from pathlib import Path

import jinja2
import jinja2.nodes
import pytest
from support.samples import all_samples

TEMPLATES = Path(__file__).parents[2] / "templates"
FOLDERS = ("_base", "token-expiring", "token-expired")
LANGUAGES = sorted({path.name for folder in FOLDERS for path in (TEMPLATES / folder).iterdir() if path.is_dir()})


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file() and path.suffix != ".css"}


FILES = [f"{folder}/{name}" for folder in FOLDERS for name in sorted(files(TEMPLATES / folder))]


def test_languages_are_those_we_ship() -> None:
    assert LANGUAGES == ["de"]


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_language_has_every_file_of_the_default(folder: str, language: str) -> None:
    assert files(TEMPLATES / folder / language) == files(TEMPLATES / folder)


def pair(name: str, language: str) -> tuple[str, str]:
    """Return the template of the default language, and its translation."""
    path = TEMPLATES / name
    return path.read_text(encoding="utf-8"), (path.parent / language / path.name).read_text(encoding="utf-8")


def attributes(source: str) -> set[str]:
    """Return what the template reads of tokens: ``renew``, ``expires_utc``."""
    return {node.attr for node in jinja2.Environment().parse(source).find_all(jinja2.nodes.Getattr)}  # noqa: S701 -- only parses


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_translation_reads_the_same_of_a_token(name: str, language: str) -> None:
    default, translation = pair(name, language)
    assert attributes(translation) == attributes(default)


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(("tokens.html", "body.html"))])
@pytest.mark.parametrize("language", LANGUAGES)
def test_translation_has_the_same_markup(name: str, language: str) -> None:
    """Same tags with the same attributes: a change to the look of one language must reach the others."""
    default, translation = pair(name, language)
    tags = re.compile(r"<[^>]+>")
    assert Counter(tags.findall(translation)) == Counter(tags.findall(default))


@pytest.mark.parametrize("name", [name for name in FILES if "/body." in name])
@pytest.mark.parametrize("language", LANGUAGES)
def test_translation_uses_no_other_language(name: str, language: str) -> None:
    """A copied body that still extends the first language's layout would mix two languages in one email."""
    default, translation = pair(name, language)
    used = re.findall(r'"(_base/[^"]+)"', default)
    assert len(used) == 2
    assert re.findall(r'"(_base/[^"]+)"', translation) == [path.replace("_base", f"_base/{language}") for path in used]


@pytest.mark.parametrize("language", LANGUAGES)
def test_translation_names_its_language(language: str) -> None:
    """A screen reader speaks the email in the language that it says it is in."""
    _, layout = pair("_base/layout.html", language)
    assert f"{{% block language %}}{language}{{% endblock %}}" in layout


def test_advice_quotes_a_link_that_the_card_has() -> None:
    """Follow "Renew this token" leads nowhere when the card calls it something else."""
    for sample in all_samples():
        quoted = re.search(r'[“„"](\w[^”“"]+)[”“"]', sample.content.text)
        assert quoted is not None
        assert f"\n    {quoted[1]}: " in sample.content.text
        quoted = re.search(r"(?:&ldquo;|„)(\w[^”“&]+)(?:&rdquo;|“)", sample.content.html)
        assert quoted is not None
        assert f">{quoted[1]}</a>" in sample.content.html
