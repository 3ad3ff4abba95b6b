"""An operator's bad morning, in the real UI: a tier failed, the relay is mended, the tier is re-run and green."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

import psycopg
import pytest
from playwright.sync_api import Locator, Page, expect
from support.ports import free_port
from support.smtpd import Action, Smtpd
from support.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
RUN_SECONDS = 120  # all of these are for a machine that is busy with other tests
START_SECONDS = 120
STOP_SECONDS = 15
RUN_ID = re.compile(r"\b[0-9a-f]{8}$")  # as the UI shortens it
RERUN_MS = 90_000  # from the click to the green dot: the queue, a new process, the run

NOON = 12
"""The pipeline's clock shows noon, whatever the hour. Its day's run is due at eleven in the evening, so neither the
schedule nor the sensor asks for anything meanwhile, and midnight is far."""

CONFIG = """
source: {{url: "{registry}", query: crates_io, timezone: UTC}}
ledger: {{url: "{database}"}}
schedule: {{at: "23:00", timezone: "{zone}", start_date: {day}}}
tiers:
  - {{name: week, before: 7d}}
  - {{name: day, before: 1d}}
email:
  from: "Registry <noreply@example.org>"
  service: Registry
  templates: "{templates}"
  links: {{manage: "https://example.org/tokens"}}
smtp: {{host: 127.0.0.1, port: {port}, security: none, reconnect_pauses: [0s]}}
"""


class SwitchedRelay(Smtpd):
    """A relay that hangs up on everybody until it is switched on; its port stays the same."""

    def __init__(self) -> None:
        self.is_up = False
        super().__init__(script=self._answer)

    def _answer(self, stage: str, _argument: str) -> Action | None:
        return Action(drop="before") if stage == "connect" and not self.is_up else None


@dataclass(frozen=True, kw_only=True)
class PipelineRunner:
    """A pipeline with one token due today, in tier ``day``. Nothing has run yet, and the relay is down."""

    folder: Path
    storage: str
    day: date
    relay: SwitchedRelay

    def run_day(self) -> subprocess.CompletedProcess[str]:
        """Run today from the command line."""
        command = [str(Path(sys.executable).with_name("token-pipelines")), "run"]
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=RUN_SECONDS, check=False
        )

    @contextmanager
    def ui(self) -> Iterator[str]:
        """Serve the UI, and the daemon that starts what is launched there; yields the UI's address."""
        port = free_port()
        command = [sys.executable, "-m", "dagster", "dev", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workspace", str(REPOSITORY / "workspace.yaml")]
        environment = os.environ | {
            "DAGSTER_HOME": str(self.folder / ".token_pipelines"),  # made by the run before
            "DAGSTER_POSTGRES_URL": self.storage.replace("postgresql://", "postgresql+psycopg2://", 1),
            "TOKEN_PIPELINES_CONFIG": str(self.folder / "token_pipelines.yaml"),
        }
        log = self.folder / "dagster.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        try:
            wait_until(lambda: _serves(process, port), seconds=START_SECONDS, what=f"the UI ({log} tells why not)")
            yield f"http://127.0.0.1:{port}"
        finally:
            _end_group(process)


@pytest.fixture
def pipeline(registry_url: str, database_url: str, tmp_path: Path) -> Iterator[PipelineRunner]:
    """Give a pipeline whose day has one notice to send and a relay that is down."""
    now = datetime.now(UTC)
    with psycopg.connect(registry_url) as connection:
        connection.execute("INSERT INTO users (id, gh_id, gh_login) VALUES (1, 1, 'ada')")
        connection.execute("INSERT INTO emails (user_id, email, verified) VALUES (1, 'ada@example.org', true)")
        connection.execute(
            "INSERT INTO api_tokens (user_id, name, created_at, expired_at) VALUES (1, 'ci', %s, %s)",
            [now - timedelta(days=90), now + timedelta(hours=18)],
        )
    ahead = NOON - now.hour
    day = (now + timedelta(hours=ahead)).date()
    with SwitchedRelay() as relay:
        config = CONFIG.format(
            registry=registry_url,
            database=database_url,
            zone=f"Etc/GMT{-ahead:+d}",  # these names count westwards
            day=day,
            templates=REPOSITORY / "templates",
            port=relay.port,
        )
        (tmp_path / "token_pipelines.yaml").write_text(config)
        yield PipelineRunner(folder=tmp_path, storage=database_url, day=day, relay=relay)


def test_failed_tier_is_rerun_from_the_ui_and_sends_once(pipeline: PipelineRunner, page: Page, tmp_path: Path) -> None:
    run = pipeline.run_day()
    assert run.returncode == 1, run.stderr
    assert pipeline.relay.accepted == []
    with pipeline.ui() as address, photographed(page, tmp_path / "failure.png"):
        failed, green = dots(page, address)
        expect(failed).to_have_count(1)
        expect(green).to_have_count(2)  # expiring_tokens, and the tier that had nothing to send

        page.goto(f"{address}/assets/notices/day?view=partitions")
        page.get_by_title(str(pipeline.day)).click()
        page.get_by_role("link", name=RUN_ID).click()
        expect(page.get_by_text(f"The relay 127.0.0.1:{pipeline.relay.port}").first).to_be_visible()
        page.go_back()

        pipeline.relay.is_up = True
        page.get_by_role("button", name="Materialize").first.click()
        page.get_by_role("button", name="Failed", exact=True).click()
        page.get_by_role("button", name="Launch 1 run").click()
        expect(page.get_by_text("Materialized (1)")).to_be_visible(timeout=RERUN_MS)
        expect(page.get_by_text("Failed (0)")).to_be_visible()

        page.goto(f"{address}/runs")
        page.get_by_role("link", name=RUN_ID).first.click()
        expect(page.get_by_text("notices.send_day").first).to_be_visible()
        expect(page.get_by_text("notices.send_week")).to_have_count(0)

        failed, green = dots(page, address)
        expect(green).to_have_count(3)
        expect(failed).to_have_count(0)
    assert [message.recipient for message in pipeline.relay.accepted] == ["ada@example.org"]


def dots(page: Page, address: str) -> tuple[Locator, Locator]:
    """Open the job's partitions with a row per asset: the red dots, the green ones."""
    page.goto(f"{address}/locations/token_pipelines/jobs/daily_notices/partitions")
    page.get_by_role("button", name="Show per-asset status").click()
    return page.locator("[class*=RunMatrixUtils_failure]"), page.locator("[class*=RunMatrixUtils_success]")


@contextmanager
def photographed(page: Page, path: Path) -> Iterator[None]:
    """Where the block fails, keep what the browser showed, and say where."""
    try:
        yield
    except BaseException as error:
        page.screenshot(path=path, full_page=True)
        error.add_note(f"The browser showed {page.url}; it is in {path}")
        raise


def _serves(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "dagster dev has ended"
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/server_info")
        return connection.getresponse().status == HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask `dagster dev` to end, which ends its children, then make sure of the whole group."""
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_SECONDS)
