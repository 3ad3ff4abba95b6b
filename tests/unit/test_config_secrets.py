"""Secrets in the config: never in the file, never repeated, never over an open network."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.config import Load, sample

from token_pipelines.config import ENV_PREFIX, load
from token_pipelines.errors import ConfigError

# Secrets


@pytest.mark.parametrize("password", ["hunter2", "", 12345])
def test_password_in_the_file_is_refused_and_not_repeated(refusal: Callable[..., str], password: object) -> None:
    said = refusal(smtp__password=password)
    assert said.endswith(
        "smtp.password does not belong in the file; set TOKEN_PIPELINES__SMTP__PASSWORD in the environment."
    )
    assert "hunter2" not in said
    assert "12345" not in said


@pytest.mark.parametrize("section", ["source", "ledger"])
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://reader:hunter2@db.example.org/registry",
        "postgresql://reader:hun/ter2@db.example.org/registry",  # urlsplit ends the host at the slash
        "postgresql://:hunter2@db.example.org/registry",
        "postgresql://[hunter2:hunter2@db.example.org/registry",
        "postgresql://db.example.org/registry?user=reader&password=hunter2",
        "postgresql://db.example.org/registry?sslpassword=hunter2",
        "mysql+pymysql://db.example.org/registry?passwd=hunter2",
    ],
)
def test_password_in_a_url_in_the_file_is_refused_and_not_repeated(
    refusal: Callable[..., str], section: str, url: str
) -> None:
    said = refusal(**{f"{section}__url": url})
    assert said.endswith(
        f"{section}.url holds a password, which does not belong in the file; "
        f"set TOKEN_PIPELINES__{section.upper()}__URL in the environment."
    )
    assert "hunter2" not in said
    assert "ter2" not in said


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://reader@db.example.org:5432/registry",
        "postgresql://db.example.org:5432/registry?passfile=/run/secrets/pgpass",
        "postgresql://reader@[::1]:5432/registry",
        "postgresql:///registry?host=/run/postgresql",
        "sqlite:////var/lib/registry.db",
    ],
)
def test_url_without_a_password_may_stand_in_the_file(load_with: Load, url: str) -> None:
    assert load_with(source__url=url).source.url.get_secret_value() == url


def test_repr_never_shows_a_password_or_a_url(load_with: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_PIPELINES__SOURCE__URL", "postgresql://reader:hunter2@db.example.org/registry")
    monkeypatch.setenv("TOKEN_PIPELINES__LEDGER__URL", "postgresql://writer:hunter2@db.example.org/ops")
    monkeypatch.setenv("TOKEN_PIPELINES__SMTP__PASSWORD", "hunter2")
    config = load_with(smtp__username="mailer", smtp__security="starttls")
    for shown in (repr(config), str(config), str(config.model_dump()), config.model_dump_json(), repr(config.smtp)):
        assert "hunter2" not in shown
        assert "db.example.org" not in shown
    assert config.smtp.password is not None
    assert config.smtp.password.get_secret_value() == "hunter2"
    assert config.source.url.get_secret_value() == "postgresql://reader:hunter2@db.example.org/registry"


def test_fault_elsewhere_does_not_show_a_password(refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of a whole section must not print the section."""
    monkeypatch.setenv("TOKEN_PIPELINES__SMTP__PASSWORD", "hunter2")
    said = refusal()
    assert said.endswith(
        "smtp: username needs a password in the environment (TOKEN_PIPELINES__SMTP__PASSWORD), "
        "and a password needs a username."
    )
    assert "hunter2" not in said


def test_username_without_a_password_is_refused(refusal: Callable[..., str]) -> None:
    assert "username needs a password in the environment" in refusal(smtp__username="mailer")


@pytest.mark.parametrize(("host", "allowed"), [("localhost", True), ("127.0.0.1", True), ("relay.example.org", False)])
def test_password_crosses_the_network_encrypted_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, *, allowed: bool
) -> None:
    monkeypatch.setenv("TOKEN_PIPELINES__SMTP__PASSWORD", "hunter2")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(sample(smtp__username="mailer", smtp__security="none", smtp__host=host)))
    if allowed:
        assert load(path).smtp.host == host
    else:
        with pytest.raises(ConfigError, match="set security to starttls or tls"):
            load(path)


# DKIM


def dkim(**changes: object) -> dict[str, object]:
    return {"domain": "example.org", "selector": "mail2026", "key_file": "dkim.pem", **changes}


def test_dkim_is_the_relays_business_by_default(load_with: Load) -> None:
    assert load_with().dkim is None


def test_dkim_key_from_the_environment(load_with: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{ENV_PREFIX}DKIM__PRIVATE_KEY", "a key")
    found = load_with(dkim={"domain": "example.org", "selector": "mail2026"}).dkim
    assert found is not None
    assert found.private_key is not None
    assert found.private_key.get_secret_value() == "a key"
    assert "a key" not in repr(found)


@pytest.mark.parametrize("key", ["private_key", "ed25519_private_key"])
def test_dkim_key_in_the_file_is_refused_and_not_repeated(refusal: Callable[..., str], key: str) -> None:
    said = refusal(dkim=dkim(**{key: "a key"}))
    assert said.endswith(
        f"dkim.{key} does not belong in the file; set TOKEN_PIPELINES__DKIM__{key.upper()} in the environment."
    )


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"key_file": None}, "dkim: selector goes with one key: key_file, or private_key in the environment"),
        ({"ed25519_selector": "ed"}, "dkim: ed25519_selector goes with one key: ed25519_key_file, or ed25519_private"),
        ({"ed25519_key_file": "ed.pem"}, "dkim: ed25519_selector goes with one key: ed25519_key_file, or ed25519_priv"),
        ({"domain": "exämple.org"}, "dkim: domain and selectors are names in the DNS, in ASCII"),
        ({"domain": "example.org; s=x"}, "dkim: domain and selectors are names in the DNS, in ASCII"),
        ({"selector": ""}, "dkim: domain and selectors are names in the DNS, in ASCII"),
        ({"selector": "a..b"}, "dkim: domain and selectors are names in the DNS, in ASCII"),
        (
            {"ed25519_selector": "mail2026", "ed25519_key_file": "ed.pem"},
            "dkim: domain and selectors are names in the DNS, in ASCII, like example.org and mail2026; no two the same",
        ),
    ],
)
def test_dkim_that_cannot_be_is_refused(refusal: Callable[..., str], changes: dict[str, object], fault: str) -> None:
    assert fault in refusal(dkim=dkim(**changes))
