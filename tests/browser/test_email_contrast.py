"""Every email in Chromium, on a phone and on a desktop, in light and dark: readable, and without sideways scrolling."""

from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import Page
from support.samples import all_samples

TIERS = ("expired", "week")  # the two templates; the other tiers differ in numbers
RULES = ["wcag2a", "wcag2aa", "wcag21aa"]
AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


def faults(page: Page, html: str) -> list[str]:
    """What axe-core finds, or cannot decide, on a page."""
    page.set_content(html)
    page.evaluate(AXE)
    found: dict[str, list[dict[str, Any]]] = page.evaluate(
        "axe.run({runOnly: {type: 'tag', values: %s}, resultTypes: ['violations', 'incomplete']})" % RULES  # noqa: UP031 -- braces
    )
    return [
        f"{fault['id']}: {node['html']} {node['failureSummary']}"
        for fault in (*found["violations"], *found["incomplete"])
        for node in fault["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 900])
def test_email_is_readable(page: Page, scheme: Any, width: int) -> None:  # noqa: ANN401 -- playwright's literal
    """No fault of contrast (WCAG AA) or structure, and nothing wider than the screen."""
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    wrong = {}
    for sample in all_samples():
        if sample.tier not in TIERS:
            continue
        if found := faults(page, sample.content.html):
            wrong[sample.key] = found
        if page.evaluate("document.documentElement.scrollWidth") > width:
            wrong[sample.key] = [*wrong.get(sample.key, []), "scrolls sideways"]
    assert wrong == {}


@pytest.mark.parametrize(
    ("scheme", "colour", "worse"), [("light", "color:#57606a", "color:#a0a0a0"), ("dark", "#a3adb8", "#404040")]
)
def test_checker_finds_faint_text(page: Page, scheme: Any, colour: str, worse: str) -> None:  # noqa: ANN401 -- as above
    """The check above sees what it is for, in dark too."""
    page.emulate_media(color_scheme=scheme)
    html = all_samples()[0].content.html
    assert colour in html
    assert any(fault.startswith("color-contrast") for fault in faults(page, html.replace(colour, worse)))
