"""A ledger by itself, a source by itself, and the command line on a config of its own, in this process."""

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from support import smtpd
from support.commands import Command, Said
from support.ledger import OpenSending, ledger_at
from support.pipeline import write_config
from support.source import OpenSource

from token_pipelines.cli.main import main
from token_pipelines.config import Origin
from token_pipelines.config import Source as SourceConfig
from token_pipelines.ledger.ledger import Ledger
from token_pipelines.ledger.sending import Sending
from token_pipelines.model import Mode
from token_pipelines.source.source import Source


@pytest.fixture
def configured(
    tmp_path: Path, registry_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Command]:
    """Configure a pipeline with these sections, and give its command line: ``command("source check", "--json")``."""

    def configure(**sections: Any) -> Command:  # noqa: ANN401 -- YAML
        config = write_config(tmp_path, registry_url, 1, **sections)

        def run(command: str, *arguments: str) -> Said:
            monkeypatch.setattr(sys, "argv", ["token-pipelines", *command.split(), "--config", str(config), *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
            captured = capsys.readouterr()
            assert "Traceback" not in captured.err
            assert isinstance(ended.value.code, int)
            return Said(status=ended.value.code, out=captured.out, err=captured.err)

        return run

    return configure


@pytest.fixture(params=["pipelining", "lock-step"])
def pipelining(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run the test twice: every answer means the same, whether the server takes commands at once or one by one."""
    at_once = bool(request.param == "pipelining")
    if not at_once:
        fewer = tuple(extension for extension in smtpd.EXTENSIONS if extension != "PIPELINING")
        monkeypatch.setattr(smtpd, "EXTENSIONS", fewer)
    return at_once


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    """An empty ledger, up to date."""
    opened = ledger_at(database_url)
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def sending(ledger: Ledger) -> OpenSending:
    """Open the ledger as a sender."""

    def open_sending(
        run_id: str = "run-1", *, mode: Mode = Mode.LIVE, ended: Collection[str] = ()
    ) -> AbstractContextManager[Sending]:
        return ledger.sending(run_id=run_id, mode=mode, has_ended=lambda other: other in ended)

    return open_sending


@pytest.fixture
def source(registry_url: str, tmp_path: Path) -> OpenSource:
    """Open the source with the preset, or with a query of one's own; ``wrong`` keys change the config."""

    def open_source(query: str = "crates_io", **keys: object) -> Source:
        if " " in query:
            (tmp_path / "tokens.sql").write_text(query, encoding="utf-8")
            query = "tokens.sql"
        origin = Origin(tmp_path / "token_pipelines.yaml")
        return Source(SourceConfig.model_validate({"url": registry_url, "query": query} | keys, context=origin))

    return open_source
