"""Our signatures, verified by two programs that are not ours: dkimpy, and Perl's Mail::DKIM."""

import base64
import os
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

from token_pipelines.config import Dkim, Email, Links, Origin
from token_pipelines.errors import ConfigError
from token_pipelines.mail.dkim import Signer
from token_pipelines.mail.message import Serialiser
from token_pipelines.mail.rendering import Content
from token_pipelines.model import Recipient

AT = datetime(2026, 11, 23, 14, 6, 7, tzinfo=UTC)
MESSAGE_ID = "<0198a3c2-7b1e@example.org>"
CONTENT = Content(
    subject="Your Bücherei API tokens expire soon; the first in 6 days and 23 hours, which is not long",
    text="Hello  Ada,\n\n\ttab and  blanks \ntrailing \t\n.dot\n" + "long " * 100 + "\n\n\n",
    html="<p>  Grüße\t</p>\n" + "x" * 200 + "\n" + "   \n\n\n",
)
ADA = Recipient(recipient_id="u/1", name="Ada", address="ada@example.org")
PRIVATE: Final = "PRIVATE KEY"

PERL: Final = r"""
use strict; use warnings;
use Mail::DKIM::Verifier; use Mail::DKIM::DNS; use Net::DNS;
my %zone = map { split /\t/, $_, 2 } split /\n/, $ENV{ZONE};
package Zone;
sub new { bless {}, shift }
sub send {
    my ($self, $name, $type) = @_;
    my $packet = Net::DNS::Packet->new($name, $type);
    $packet->header->qr(1);
    if (exists $zone{$name}) {
        my @pieces = unpack "(A250)*", $zone{$name};
        $packet->push(answer => Net::DNS::RR->new(owner => $name, type => "TXT", txtdata => \@pieces));
    }
    return $packet;
}
sub query { my $self = shift; return $self->send(@_) }
sub udp_timeout {} sub tcp_timeout {} sub errorstring { "" }
package main;
Mail::DKIM::DNS::resolver(Zone->new);
my $verifier = Mail::DKIM::Verifier->new;
binmode STDIN; local $/; $verifier->PRINT(<STDIN>); $verifier->CLOSE;
print $_->algorithm, " ", $_->result_detail, "\n" for $verifier->signatures;
"""


def has_mail_dkim() -> bool:
    perl = shutil.which("perl")
    return (
        perl is not None
        and subprocess.run([perl, "-MMail::DKIM", "-e1"], capture_output=True, check=False).returncode == 0
    )


@pytest.fixture(scope="session")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="session")
def ed25519_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def pem(
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
    encryption: KeySerializationEncryption | None = None,
) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()).decode()


@pytest.fixture(scope="session")
def zone(rsa_key: rsa.RSAPrivateKey, ed25519_key: ed25519.Ed25519PrivateKey) -> dict[str, str]:
    """The public keys as they stand in the DNS."""
    der = rsa_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    raw = ed25519_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {
        "mail._domainkey.example.org": f"v=DKIM1; k=rsa; p={base64.b64encode(der).decode()}",
        "ed._domainkey.example.org": f"v=DKIM1; k=ed25519; p={base64.b64encode(raw).decode()}",
    }


@pytest.fixture(scope="session")
def signer(
    rsa_key: rsa.RSAPrivateKey, ed25519_key: ed25519.Ed25519PrivateKey, tmp_path_factory: pytest.TempPathFactory
) -> Signer:
    """Both kinds: the one from a file, the other from the environment."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "dkim.pem").write_text(pem(rsa_key))
    both = {"ed25519_selector": "ed", "ed25519_private_key": pem(ed25519_key).replace("\n", "\\n")}
    return Signer(Dkim.model_validate({**dkim_keys(), **both}, context=Origin(folder / "token_pipelines.yaml")))


def dkim_keys(**changes: object) -> dict[str, object]:
    return {"domain": "example.org", "selector": "mail", "key_file": "dkim.pem", **changes}


def message(signer: Signer, content: Content = CONTENT, recipient: Recipient = ADA) -> bytes:
    email = Email.model_validate(
        {
            "from": "Bücherei Köln <noreply@example.org>",
            "service": "Bücherei",
            "reply_to": "help@example.org",
            "feedback_id": "token-expiry:example",
            "links": Links(manage="https://example.org/", unsubscribe="https://example.org/u/{recipient_id}"),
        }
    )
    return Serialiser(email, signer).envelope(content, recipient, message_id=MESSAGE_ID, at=AT).data


def verified(data: bytes, zone: dict[str, str]) -> list[bool]:
    """What dkimpy says of each of the two signatures."""

    def look_up(name: bytes, timeout: int = 5) -> bytes:
        assert timeout
        return zone[name.decode().rstrip(".")].encode()

    def holds(number: int) -> bool:
        try:
            return bool(dkim.DKIM(data).verify(idx=number, dnsfunc=look_up))
        except dkim.ValidationError:  # the body's hash
            return False

    return [holds(number) for number in range(2)]


def test_sign_verified_by_dkimpy(signer: Signer, zone: dict[str, str]) -> None:
    """Both signatures hold, and say what they cover."""
    data = message(signer)
    assert verified(data, zone) == [True, True]
    first, second = (part for part in data.decode().split("\r\n\r\n")[0].replace("\r\n ", " ").split("\r\n")[:2])
    assert first.startswith(
        "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=mail; t=1795442767;"
    )
    assert second.startswith("DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed; d=example.org; s=ed;")
    covered = first.split(" h=")[1].split(";")[0].replace(" ", "").split(":")
    assert covered == [
        *("from", "to", "subject", "date", "message-id", "reply-to", "auto-submitted"),
        *("list-unsubscribe", "list-unsubscribe-post", "mime-version", "content-type", "feedback-id"),
        *("from", "to", "cc", "subject", "date", "reply-to", "message-id", "mime-version", "content-type"),
    ]
    head = data.split(b"\r\n\r\n")[0].split(b"\r\n")
    assert max(len(line) for line in head if not line.startswith(b"List-")) <= 98


@pytest.mark.skipif(not has_mail_dkim(), reason="Perl's Mail::DKIM is not installed (Debian: libmail-dkim-perl)")
@pytest.mark.parametrize(
    "content",
    [CONTENT, Content(subject="s", text="\n", html="\n"), Content(subject="=?utf-8?q?x?=", text="a  b\n", html="\t\n")],
    ids=["ordinary", "empty", "encoded"],
)
def test_sign_verified_by_mail_dkim(signer: Signer, zone: dict[str, str], content: Content) -> None:
    """A verifier that shares neither code nor language with ours."""
    names = "\n".join(f"{name}\t{record}" for name, record in zone.items())
    found = subprocess.run(
        ["perl", "-e", PERL],
        input=message(signer, content),
        env={**os.environ, "ZONE": names},
        capture_output=True,
        check=True,
    )
    first, second = found.stdout.decode().splitlines()
    assert first == "rsa-sha256 pass"
    assert second in {
        "ed25519-sha256 pass",
        "ed25519-sha256 invalid (unsupported algorithm ed25519-sha256)",
    }  # Debian 12


@settings(max_examples=examples(60))
@given(st.text(max_size=200), st.text(st.sampled_from(" \t\r\nx=.é"), max_size=200))
def test_sign_any_words(signer: Signer, zone: dict[str, str], subject: str, body: str) -> None:
    """Whatever the words, their blanks and their line ends."""
    content = Content(subject=subject, text=body, html=f"<p>{body}</p>\n")
    assert verified(message(signer, content), zone) == [True, True]


def test_sign_international_recipient(signer: Signer, zone: dict[str, str]) -> None:
    """A header in UTF-8 is signed as it stands."""
    data = message(signer, recipient=Recipient(recipient_id="1", name=None, address="ädä@example.org"))
    assert verified(data, zone) == [True, True]


def test_sign_touched_on_the_way(signer: Signer, zone: dict[str, str]) -> None:
    """Blanks may change; words may not, and nothing may be put before ours."""
    data = message(signer)
    harmless = data.replace(b"\r\nTo: ", b"\r\nTo:    ").replace(b"Auto-Submitted:", b"auto-submitted:")
    assert verified(b"Received: from a by b\r\n" + harmless, zone) == [True, True]
    for wrong in (
        data.replace(b"Hello", b"Howdy"),
        data.replace(b"To: ada@", b"To: eve@"),
        b"Subject: Another\r\n" + data,
        b"From: eve@example.org\r\n" + data,
        b"Cc: eve@example.org\r\n" + data,
        data.replace(b"List-Unsubscribe: <https://example.org", b"List-Unsubscribe: <https://evil.example"),
    ):
        assert verified(wrong, zone) == [False, False]


def test_sign_same_inputs_same_bytes(signer: Signer) -> None:
    """A resend is a resend, signatures included."""
    assert message(signer) == message(signer)


def test_signer_tells_no_key(signer: Signer, rsa_key: rsa.RSAPrivateKey) -> None:
    """Neither the signer nor the config shows it."""
    config = Dkim.model_validate(dkim_keys(key_file=None, private_key=pem(rsa_key)))
    for shown in (repr(signer), str(signer), repr(vars(signer)), repr(config), str(config), config.model_dump_json()):
        assert PRIVATE not in shown
        assert pem(rsa_key).splitlines()[3] not in shown


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("missing", r"^dkim\.key_file cannot be read \(FileNotFoundError\); check the path"),
        ("nonsense", r"^dkim\.key_file is not a private key in PEM form without a password; make one"),
        ("encrypted", r"^dkim\.key_file is not a private key in PEM form without a password; make one"),
        ("public", r"^dkim\.key_file is not a private key in PEM form without a password; make one"),
        ("short", r"^dkim\.key_file must be an RSA key of 2048 bits or more"),
        ("ed25519", r"^dkim\.key_file must be an RSA key of 2048 bits or more; an Ed25519 key can only be added"),
        ("curve", r"^dkim\.key_file must be an RSA key of 2048 bits or more"),
    ],
)
def test_signer_unfit_key(kind: str, fault: str, tmp_path: Path, rsa_key: rsa.RSAPrivateKey) -> None:
    """Found before the first email, named with its cure, and not repeated."""
    text = {
        "nonsense": f"-----BEGIN {PRIVATE}-----\nnonsense\n-----END {PRIVATE}-----\n",
        "encrypted": pem(rsa_key, BestAvailableEncryption(b"x")),
        "public": rsa_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        "short": pem(rsa.generate_private_key(public_exponent=65537, key_size=1024)),  # noqa: S505 -- to be refused
        "ed25519": pem(ed25519.Ed25519PrivateKey.generate()),
        "curve": pem(ec.generate_private_key(ec.SECP256R1())),
    }.get(kind)
    if text is not None:
        (tmp_path / "dkim.pem").write_text(text)
    with pytest.raises(ConfigError, match=fault) as caught:
        Signer(Dkim.model_validate(dkim_keys(), context=Origin(tmp_path / "token_pipelines.yaml")))
    assert text is None or not [line for line in text.splitlines()[1:-1] if line in str(caught.value)]


def test_signer_unfit_second_key(tmp_path: Path, rsa_key: rsa.RSAPrivateKey) -> None:
    """An RSA key where the Ed25519 key belongs."""
    (tmp_path / "dkim.pem").write_text(pem(rsa_key))
    both = dkim_keys(ed25519_selector="ed", ed25519_private_key=pem(rsa_key))
    with pytest.raises(ConfigError, match=r"^dkim\.ed25519_private_key must be an Ed25519 key; make one"):
        Signer(Dkim.model_validate(both, context=Origin(tmp_path / "token_pipelines.yaml")))
