"""DKIM signatures (RFC 6376, RFC 8463), for operators whose relay does not sign.

Relaxed canonicalisation, since relays change blanks and line ends. Signs the headers and the body that ``message``
made; does not parse mail. Written by hand on ``cryptography``: dkimpy takes twenty times as long (7 ms a signature).
Private keys stay inside the key objects of ``cryptography``; they are never printed, logged or copied.
"""

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pydantic import SecretStr

from token_pipelines import config
from token_pipelines.errors import ConfigError

_SMALLEST_KEY: Final = 2048  # bits; RFC 8301 allows 1024, which large providers no longer trust
_SIGNED: Final = (
    "from",
    "to",
    "subject",
    "date",
    "message-id",
    "reply-to",
    "auto-submitted",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "mime-version",
    "content-type",
    "feedback-id",
)
_NEVER_ADDED: Final = ("from", "to", "cc", "subject", "date", "reply-to", "message-id", "mime-version", "content-type")
"""Listed once more than they occur, so that adding a second one on the way breaks the signature."""

_LINE: Final = 76


class Signer:
    """Signs for one domain with an RSA key, and with an Ed25519 key if there is one. Safe to use from any thread."""

    def __init__(self, dkim: config.Dkim) -> None:
        """Load the keys.

        Raises:
            ConfigError: a key cannot be read, or has the wrong type or size.
        """
        self._domain = dkim.domain
        self._keys: list[tuple[str, str, Callable[[bytes], bytes]]] = [
            ("rsa-sha256", dkim.selector, _rsa(*_pem(dkim, "")))
        ]
        if dkim.ed25519_selector is not None:
            self._keys.append(("ed25519-sha256", dkim.ed25519_selector, _ed25519(*_pem(dkim, "ed25519_"))))

    def sign(self, headers: list[str], body: bytes, *, at: datetime) -> list[str]:
        """Give one DKIM-Signature for each key, as header lines to put before ``headers``.

        ``headers`` are whole header lines, folded or not, without the final CRLF, each name once. Deterministic.
        """
        by_name = {line.partition(":")[0].lower(): _relaxed_header(line) for line in headers}
        present = [name for name in _SIGNED if name in by_name]
        listed = ":".join([*present, *_NEVER_ADDED])
        covered = b"\r\n".join([*(by_name[name] for name in present), b""])
        body_hash = b64encode(hashlib.sha256(_relaxed_body(body)).digest()).decode()
        signatures = []
        for algorithm, selector, sign in self._keys:
            line = (
                f"DKIM-Signature: v=1; a={algorithm}; c=relaxed/relaxed; d={self._domain};\r\n s={selector};"
                f" t={int(at.timestamp())};\r\n h={_folded(listed, ':')};\r\n bh={body_hash};\r\n b="
            )
            signature = b64encode(sign(hashlib.sha256(covered + _relaxed_header(line)).digest())).decode()
            signatures.append(line + _folded(signature, ""))
        return signatures


def _relaxed_header(line: str) -> bytes:
    """RFC 6376, 3.4.2."""
    name, _, value = line.partition(":")
    return f"{name.lower()}:{' '.join(value.split())}".encode()


def _relaxed_body(body: bytes) -> bytes:
    """RFC 6376, 3.4.4. Lines end in CRLF."""
    relaxed = body.replace(b"\t", b" ")
    while b"  " in relaxed:  # a few passes, together far cheaper than a regular expression
        relaxed = relaxed.replace(b"  ", b" ")
    relaxed = relaxed.replace(b" \r\n", b"\r\n")
    return relaxed.rstrip(b"\r\n") + b"\r\n" if relaxed.strip(b"\r\n") else b""


def _folded(value: str, separator: str) -> str:
    """Fold into lines of at most 76; readers ignore the blanks between them (RFC 6376, 3.2 and 3.5)."""
    pieces = value.split(separator) if separator else re.findall(".{1,70}", value)
    lines = [pieces[0]]
    for piece in pieces[1:]:
        if separator and len(lines[-1]) + len(piece) < _LINE - len(" h=;"):
            lines[-1] += separator + piece
        else:
            lines[-1] += separator
            lines.append(piece)
    return "\r\n ".join(lines)


def _pem(dkim: config.Dkim, prefix: str) -> tuple[str, object]:
    """The config's name for the key, and the private key."""
    secret: SecretStr | None = getattr(dkim, f"{prefix}private_key")
    path: Path | None = getattr(dkim, f"{prefix}key_file")
    name = f"dkim.{prefix}private_key" if path is None else f"dkim.{prefix}key_file"
    try:
        if path is not None:
            pem = path.read_bytes()
        else:  # an environment file may hold it on one line, with \n for line breaks
            pem = (secret.get_secret_value() if secret else "").replace("\\n", "\n").encode()
        return name, load_pem_private_key(pem, password=None)
    except OSError as error:
        msg = f"{name} cannot be read ({error.__class__.__name__}); check the path and its permissions."
        raise ConfigError(msg) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):  # not PEM; needs a password; unsupported type
        msg = f"{name} is not a private key in PEM form without a password; make one with openssl genpkey."
        raise ConfigError(msg) from None


def _rsa(name: str, key: object) -> Callable[[bytes], bytes]:
    if not isinstance(key, RSAPrivateKey) or key.key_size < _SMALLEST_KEY:
        msg = f"{name} must be an RSA key of {_SMALLEST_KEY} bits or more; an Ed25519 key can only be added to it."
        raise ConfigError(msg)
    return lambda digest: key.sign(digest, padding.PKCS1v15(), Prehashed(SHA256()))


def _ed25519(name: str, key: object) -> Callable[[bytes], bytes]:
    if not isinstance(key, Ed25519PrivateKey):
        msg = f"{name} must be an Ed25519 key; make one with openssl genpkey -algorithm ed25519."
        raise ConfigError(msg)
    return key.sign
