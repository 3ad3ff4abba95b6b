"""Files that an editor saved in another encoding: the sentence names the encoding."""

import codecs
import shutil
from pathlib import Path

import pytest

from token_pipelines import shipped
from token_pipelines.config import load
from token_pipelines.errors import ConfigError, TemplateError
from token_pipelines.mail.templates import Templates
from token_pipelines.source import on_sent, query
from token_pipelines.source.databases.postgres import POSTGRES
from token_pipelines.text_files import read_text

TEXT = "a:\r\n  ä: 1\r\n"
SQL = "SELECT 1 WHERE expires_at >= :expires_after AND expires_at < :expires_before -- ä\n"
OTHERS = {
    "utf-16": "is in UTF-16; save it as UTF-8.",
    "utf-16-le": "is in UTF-16 or UTF-32; save it as UTF-8.",
    "utf-16-be": "is in UTF-16 or UTF-32; save it as UTF-8.",
    "utf-32": "is in UTF-32; save it as UTF-8.",
    "latin-1": "is not in UTF-8 at line {line}, but perhaps in Latin-1 or Windows-1252; save it as UTF-8.",
}


@pytest.mark.parametrize("encoding", OTHERS)
def test_config_in_another_encoding_is_told_so(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(TEXT.encode(encoding))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"{path} {OTHERS[encoding].format(line=2)}"


@pytest.mark.parametrize("encoding", OTHERS)
def test_query_in_another_encoding_is_told_so(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "tokens.sql"
    path.write_bytes(SQL.encode(encoding))
    said = OTHERS[encoding].format(line=1)
    with pytest.raises(ConfigError) as caught:
        query.load(str(path), POSTGRES.dialect)
    assert str(caught.value) == f"source.query: {path} {said}"
    with pytest.raises(ConfigError) as caught:
        on_sent.load(str(path))
    assert str(caught.value) == f"source.on_sent: {path} {said}"


@pytest.mark.parametrize("encoding", OTHERS)
@pytest.mark.parametrize("name", ["notice/body.txt", "notice/body.html", "_base/style.css"])
def test_template_in_another_encoding_is_told_so(tmp_path: Path, encoding: str, name: str) -> None:
    folder = templates(tmp_path)
    (folder / name).write_bytes("/* ä */".encode(encoding))
    with pytest.raises(TemplateError) as caught:
        Templates(folder, notices=("notice",), variables=set())
    assert str(caught.value) == f"{folder / name} {OTHERS[encoding].format(line=1)}"


def templates(folder: Path) -> Path:
    for name in ("notice/subject.txt", "notice/body.txt", "notice/body.html", "_base/style.css"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("", encoding="utf-8")
    return folder


def test_mark_before_utf_8_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(codecs.BOM_UTF8 + TEXT.encode())
    assert read_text(path) == "a:\n  ä: 1\n"
    shutil.copyfile(shipped.path("token_pipelines.yaml"), path)
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert load(path).smtp.port == 2525
    (tmp_path / "tokens.sql").write_bytes(codecs.BOM_UTF8 + SQL.encode())
    assert query.load(str(tmp_path / "tokens.sql"), POSTGRES.dialect).startswith("SELECT 1")
    folder = templates(tmp_path)
    (folder / "notice" / "subject.txt").write_bytes(codecs.BOM_UTF8 + b"Subject")
    found = Templates(folder, notices=("notice",), variables=set())
    assert found.render("notice/subject.txt", {}) == "Subject"
