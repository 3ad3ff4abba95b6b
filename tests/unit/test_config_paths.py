"""Paths in the config are relative to its file, and absolute once it is read."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from token_pipelines import shipped
from token_pipelines.config import Config, Email, Origin, load


def read(folder: Path, **sections: dict[str, Any]) -> Config:
    """The shipped config with these keys laid over it, written to ``folder`` and read."""
    config = yaml.safe_load(shipped.path("token_pipelines.yaml").read_text(encoding="utf-8"))
    for section, keys in sections.items():
        config[section] = config.get(section, {}) | keys
    path = folder / "token_pipelines.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return load(path)


def test_every_path_is_absolute_once_read(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        source={"query": "sql/tokens.sql", "on_sent": "mark.sql"},
        email={"templates": "mail"},
        smtp={"ca_file": "ca.pem"},
        dkim={"domain": "example.org", "selector": "s", "key_file": "keys/rsa.pem"}
        | {"ed25519_selector": "e", "ed25519_key_file": "../ed.pem"},
    )
    assert config.source.query == str(tmp_path / "sql/tokens.sql")
    assert config.source.on_sent == str(tmp_path / "mark.sql")
    assert config.email.templates == tmp_path / "mail"
    assert config.smtp.ca_file == tmp_path / "ca.pem"
    assert config.dkim is not None
    assert (config.dkim.key_file, config.dkim.ed25519_key_file) == (tmp_path / "keys/rsa.pem", tmp_path / "../ed.pem")


def test_templates_lie_beside_the_config_by_default(tmp_path: Path) -> None:
    links = {"manage": "https://example.org/tokens"}
    email = {"from": "noreply@example.org", "service": "Example", "links": links}
    assert Email.model_validate(email, context=Origin(tmp_path / "any.yaml")).templates == tmp_path / "templates"


def test_absolute_path_stays_as_it_is(tmp_path: Path) -> None:
    config = read(tmp_path, source={"query": "/etc/tokens.sql"}, smtp={"ca_file": "/etc/ca.pem"})
    assert (config.source.query, config.smtp.ca_file) == ("/etc/tokens.sql", Path("/etc/ca.pem"))


def test_preset_and_statement_are_no_paths(tmp_path: Path) -> None:
    statement = "UPDATE tokens SET warned_at = :sent_at WHERE id IN :token_ids"
    config = read(tmp_path, source={"query": "crates_io", "on_sent": statement})
    assert (config.source.query, config.source.on_sent) == ("crates_io", statement)


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("sqlite:///app.db", "sqlite:///{folder}/app.db"),
        ("sqlite:///file:app.db?timeout=5", "sqlite:///file:{folder}/app.db?timeout=5"),
        ("sqlite+pysqlite:///data/app.db", "sqlite+pysqlite:///{folder}/data/app.db"),
        ("sqlite:////var/app.db", "sqlite:////var/app.db"),
        ("sqlite://", "sqlite:///{folder}"),
        ("sqlite://host/app.db", "sqlite://host/app.db"),
        ("postgresql://reader@localhost/app.db", "postgresql://reader@localhost/app.db"),
        ("not a URL", "not a URL"),
    ],
)
def test_file_of_a_sqlite_database(tmp_path: Path, written: str, read_as: str) -> None:
    source = read(tmp_path, source={"url": written, "on_sent_url": written}).source
    assert source.url.get_secret_value() == read_as.format(folder=tmp_path)
    assert source.on_sent_url is not None
    assert source.on_sent_url.get_secret_value() == read_as.format(folder=tmp_path)
