"""A registry to fill, and the command line on a config of its own, in this process."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import smtpd
from support.commands import Command, Said
from support.pipeline import write_config

from token_pipelines.cli.main import main


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
