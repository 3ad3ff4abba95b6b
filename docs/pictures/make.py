"""``make pictures``: take the README's two pictures, an email and a day in the Dagster UI.

Runs ``token-pipelines preview`` and ``token-pipelines demo`` in a temporary folder, and ends the demo afterwards. Needs
Chromium and pngquant (on Debian and Ubuntu: apt-get install chromium pngquant).
"""

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from playwright.sync_api import Page, sync_playwright

HERE: Final = Path(__file__).parent
COMMAND: Final = str(Path(sys.executable).with_name("token-pipelines"))
CHROMIUM_ARGUMENTS: Final = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
LARGEST_BYTES: Final = 100_000
COLOURS: Final = 64
DEMO_START_S: Final = 300  # four days are run before the UI starts
DEMO_STOP_S: Final = 60
PAGE_MS: Final = 60_000
EMAIL_SIZE: Final = (640, 400)  # px; the picture is as high as the email
UI_SIZE: Final = (1280, 900)


def main() -> None:
    """Write ``email.png`` and ``dagster.png`` beside this file."""
    chromium, pngquant = _program("chromium"), _program("pngquant")
    with TemporaryDirectory(prefix="token-pipelines-pictures-") as name, sync_playwright() as playwright:
        folder = Path(name)
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS, env={"HOME": name})
        page = browser.new_page()
        page.set_default_timeout(PAGE_MS)
        _take_email(page, folder)
        _quantise(pngquant, folder / "email.png")
        with _demo(folder) as address:
            _take_ui(page, address, folder)
        _quantise(pngquant, folder / "dagster.png")
        browser.close()


def _take_email(page: Page, folder: Path) -> None:
    """The preview's email about several tokens, as a mail program shows it."""
    pages = folder / "preview"
    config = HERE.parents[1] / "token_pipelines.yaml"
    subprocess.run([COMMAND, "preview", "--config", str(config), "--out", str(pages)], check=True, capture_output=True)
    page.goto((pages / "week-mixed-default.html").as_uri())
    html = page.locator("iframe.desktop.light").get_attribute("srcdoc")
    page.set_viewport_size({"width": EMAIL_SIZE[0], "height": EMAIL_SIZE[1]})
    page.set_content(html or "")
    page.screenshot(path=folder / "email.png", full_page=True)


def _take_ui(page: Page, address: str, folder: Path) -> None:
    """Today's partition of `expiring_tokens`: how many tokens each tier has, and why the others lead to no email."""
    today = datetime.now(UTC).date()
    page.set_viewport_size({"width": UI_SIZE[0], "height": UI_SIZE[1]})
    page.goto(f"{address}assets/expiring_tokens?view=partitions&partition={today}")
    page.get_by_text("examined", exact=True).first.wait_for()
    page.get_by_role("button", name="Hide navigation").click()
    page.screenshot(path=folder / "dagster.png", animations="disabled")


@contextmanager
def _demo(folder: Path) -> Iterator[str]:
    """Run the demo; yields the address of its UI."""
    log = folder / "demo.log"
    with log.open("wb") as output:
        process = subprocess.Popen([COMMAND, "demo"], cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + DEMO_START_S
        while not (found := re.search(r"Dagster UI: (\S+)", log.read_text(encoding="utf-8"))):
            if process.poll() is not None or time.monotonic() > deadline:
                msg = f"The demo did not start:\n{log.read_text(encoding='utf-8')}"
                raise RuntimeError(msg)
            time.sleep(1)
        yield found[1]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(DEMO_STOP_S)


def _quantise(pngquant: str, picture: Path) -> None:
    """Keep a picture beside this file, with few colours.

    Raises:
        RuntimeError: it is too large for a repository.
    """
    kept = HERE / picture.name
    subprocess.run(
        [pngquant, "--force", "--strip", "--speed", "1", "--output", str(kept), str(COLOURS), str(picture)], check=True
    )
    size = kept.stat().st_size
    if size > LARGEST_BYTES:
        msg = f"{kept} has {size:,} bytes; the limit is {LARGEST_BYTES:,}. Show less of the page."
        raise RuntimeError(msg)
    print(f"{kept}: {size:,} bytes")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        sys.exit(f"{name} is missing; install it (on Debian and Ubuntu: apt-get install {name}).")
    return found


if __name__ == "__main__":
    main()
