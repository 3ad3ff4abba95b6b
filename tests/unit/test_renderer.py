"""The renderer over a folder of templates: faults, translations, a style of its own."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.rendering import ADA, DAY, MANAGE, NOW, TEMPLATES, email, token

from token_pipelines.config import Links
from token_pipelines.errors import ConfigError, TemplateError
from token_pipelines.mail.rendering import Renderer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(TEMPLATES, tmp_path / "templates")
    return tmp_path / "templates"


@pytest.mark.parametrize(
    ("name", "line", "fault"),
    [
        (
            "token-expiring/body.txt",
            "{{ servise }}",
            r"body\.txt line 1 uses servise, which is not a variable of emails; use one of",
        ),
        ("token-expired/body.html", "{% if false %}{{ oops }}{% endif %}", r"line 1 uses oops"),
        ("token-expiring/subject.txt", "{{ expiring[0].nmae }}", r"subject\.txt line 1 fails: .*'nmae'"),
        ("token-expiring/subject.txt", "\n\n{{ 1 / 0 }}", r"subject\.txt line 3 fails: division by zero; fix it"),
        ("token-expiring/subject.txt", "a\n{% if %}", r"subject\.txt line 2 fails: .*; fix it"),
        ("token-expired/body.html", "{% extends 'gone.html' %}", r"line 1 needs gone\.html, which is missing"),
        (
            "_base/tokens.txt",
            "{% macro blocks(tokens, brief) %}\n{{ tokens[0].colour }}\n{% endmacro %}",
            r"line \d+ fails",
        ),
        ("token-expiring/de/body.txt", "{{ dienst }}", r"de/body\.txt line 1 uses dienst, which is not"),
        ("token-expiring/de/subject.txt", "{{ 1 / 0 }}", r"de/subject\.txt line 1 fails: division by zero"),
        (
            "_base/tokens.html",
            "<b>\n</b><td class='{{ x }}'>",
            r"_base/tokens\.html fails: line 2 gives <td> a class that depends on a tag; .*; fix it",
        ),
        ("extra.txt", "{{ x | nofilter }}", r"extra\.txt line 1 fails: No filter named 'nofilter'"),
    ],
)
def test_renderer_faulty_template(folder: Path, name: str, line: str, fault: str) -> None:
    """Found at load, with file, line and cure, in one sentence."""
    (folder / name).write_text(line)
    with pytest.raises(TemplateError, match=fault) as caught:
        Renderer(folder, email())
    assert str(caught.value).count("\n") == 0
    assert str(folder) in str(caught.value)


def test_renderer_missing_template(folder: Path) -> None:
    """Named, with the cure."""
    (folder / "token-expired/body.html").unlink()
    with pytest.raises(TemplateError, match=r"token-expired/body\.html is missing; copy it from the templates we ship"):
        Renderer(folder, email())


def test_renderer_half_a_translation(folder: Path) -> None:
    """The English subject of a German text would be found by its readers only."""
    (folder / "token-expired/de/subject.txt").unlink()
    with pytest.raises(TemplateError, match=r"de/subject\.txt is missing; a translation needs the subject, the text"):
        Renderer(folder, email())


def test_renderer_translation_for_no_locale(folder: Path) -> None:
    """A folder that no profile will ever ask for is a typing mistake."""
    (folder / "token-expired/de").rename(folder / "token-expired/gr")
    with pytest.raises(TemplateError, match=r"token-expired/gr is not named after a locale; name it like de or pt_BR"):
        Renderer(folder, email())


def test_renderer_one_translation_of_two(folder: Path) -> None:
    """What has no translation is said in the default language; other folders are the operator's own business."""
    shutil.rmtree(folder / "token-expired/de")
    (folder / "token-expired/partials").mkdir()
    (folder / "token-expired/partials/extra.txt").write_text("{{ service }}")
    renderer = Renderer(folder, email())
    german = replace(ADA, locale="de")
    assert renderer.render(german, [token(-DAY)], now=NOW).subject == "Your Example Registry API token has expired"
    assert renderer.render(german, [token(DAY)], now=NOW).subject.startswith("Ihr API-Token")


def test_renderer_nearest_translation(folder: Path) -> None:
    """de_AT has its own, de_CH gets de; however the folder is spelt."""
    shutil.copytree(folder / "token-expiring/de", folder / "token-expiring/de-AT")
    (folder / "token-expiring/de-AT/subject.txt").write_text("Servus")
    renderer = Renderer(folder, email())
    subjects = [
        renderer.render(replace(ADA, locale=locale), [token(DAY)], now=NOW).subject.split()[0]
        for locale in ("de_AT", "DE-at", "de_CH", "de", "en")
    ]
    assert subjects == ["Servus", "Servus", "Ihr", "Ihr", "Your"]
    assert renderer.translations == ("de", "de_at")


def test_renderer_without_a_stylesheet(folder: Path) -> None:
    """An operator's plain templates need none."""
    (folder / "_base/style.css").unlink()
    html = Renderer(folder, email()).render(ADA, [token(DAY)], now=NOW).html
    assert "style=" not in html
    assert "@media" not in html


def test_renderer_own_style(folder: Path) -> None:
    """A designer edits a class, and every email has it."""
    sheet = folder / "_base/style.css"
    sheet.write_text(sheet.read_text() + "\n.button { background-color: #123456; }\n")
    html = Renderer(folder, email()).render(ADA, [token(DAY)], now=NOW).html
    assert re.search(r'class="button"[^>]*background-color:#123456', html)


def test_renderer_template_not_text(folder: Path) -> None:
    """A file in another encoding is named."""
    (folder / "token-expired/body.html").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TemplateError, match=r"body\.html is in UTF-16; save it as UTF-8\.$"):
        Renderer(folder, email())


def test_renderer_own_template(folder: Path) -> None:
    """An operator's words are used, and a subject of two lines becomes one."""
    (folder / "token-expiring/subject.txt").write_text("Achtung,\n{{ count }} bei {{ service }}\n")
    content = Renderer(folder, email()).render(ADA, [token(DAY)], now=NOW)
    assert content.subject == "Achtung, 1 bei Example Registry"


@pytest.mark.parametrize("key", ["manage", "unsubscribe"])
def test_renderer_token_id_in_a_link_for_all(key: str) -> None:
    """One email speaks of several tokens: such a link cannot be filled in."""
    links = Links(**{"manage": MANAGE, key: "https://example.org/{token_id}"})
    with pytest.raises(ConfigError, match=rf"email\.links\.{key} cannot hold {{token_id}}"):
        Renderer(TEMPLATES, email().model_copy(update={"links": links}))
