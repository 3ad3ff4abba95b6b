"""The gallery, opened from disk as a person opens it."""

from pathlib import Path

import pytest
from playwright.sync_api import Page
from support.samples import NOW, shipped_config

from token_pipelines.operations.preview import gallery

SCHEME = "matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'"
PAPER = "getComputedStyle(document.querySelector('.sheet')).backgroundColor"


@pytest.mark.parametrize("own", ["light", "dark"])
def test_frames_show_both_schemes(page: Page, tmp_path: Path, own: str) -> None:
    """Dark frames are dark to the email itself, whatever the page's own scheme is."""
    index, _ = gallery.write(shipped_config(), tmp_path, now=NOW)
    page.emulate_media(color_scheme="null")  # emulating a scheme would reach into the frames
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("requestfailed", lambda request: problems.append(request.url))
    page.goto(index.as_uri())
    page.get_by_role("link", name="de", exact=True).first.click()
    page.wait_for_url("**/*-de.html", wait_until="load")  # a click does not wait for the frames
    page.evaluate(f"document.documentElement.style.colorScheme = '{own}'")
    frames = [frame for frame in page.frames if frame != page.main_frame]
    seen = [(frame.evaluate("innerWidth"), frame.evaluate(SCHEME), frame.evaluate(PAPER)) for frame in frames]
    light, dark = "rgb(255, 255, 255)", "rgb(22, 27, 34)"
    assert seen == [
        (390, "light", light),
        (390, "dark", dark),
        (900, "light", light),
        (900, "dark", dark),
    ]
    assert page.get_by_text("Guten Tag Ada Lovelace").first.is_visible()
    assert problems == []
