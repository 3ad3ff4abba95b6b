"""Opens a session with the relay until it is ready for messages, and ends it."""

import base64
import binascii
import contextlib
import ipaddress
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

from token_pipelines import config
from token_pipelines.errors import ConfigError, RelayError
from token_pipelines.model import Stage
from token_pipelines.smtp.redaction import Secrets
from token_pipelines.smtp.session import CLOSING, ConnectionLost, Reply, SmtpSession, TlsSmtpSession, reply

_GREETING: Final = 220
_WAIT: Final = "wait until it takes connections again, or look at its log"
_PORTS: Final = "smtp.port against smtp.security (587 is starttls, 465 is tls)"
_GOODBYE_SECONDS: Final = 2.0  # how long to wait for the answer to QUIT, which is only a courtesy


class Connector:
    """Opens sessions as configured; shared by threads."""

    def __init__(self, smtp: config.Smtp) -> None:
        """Read the certificates once, since that takes tens of milliseconds.

        Raises:
            ConfigError: ``smtp.ca_file`` cannot be used.
        """
        self.name = f"{smtp.host}:{smtp.port}"
        self._smtp = smtp
        password = None if smtp.password is None else smtp.password.get_secret_value()
        self._secrets = Secrets(smtp.username, password)
        self._context = None if smtp.security == "none" else _context(smtp)
        self._own_name: str | None = None

    def open(self) -> SmtpSession:
        """Open a session: connect, encrypt and log in as configured.

        Raises:
            RelayError: it could not be opened; the message says why, and the cure.
        """
        dialogue = self._dialogue()
        try:
            self._connect(dialogue)
            self._greet(dialogue)
            if self._smtp.security == "starttls":
                self._encrypt(dialogue)
                self._greet(dialogue)
            if self._smtp.username is not None:
                self._log_in(dialogue)
        except ConnectionLost as lost:
            dialogue.close()
            # Once the relay has greeted us, the port is right.
            cure = (
                "check smtp.port and smtp.security, and its log" if lost.stage is Stage.CONNECT else "look at its log"
            )
            self._fail(f"gave no answer to {lost.stage.upper()} ({lost})", cure, may_pass=True)
        except BaseException:
            dialogue.close()
            raise
        dialogue.wait_at_most(self._smtp.command_timeout.total_seconds())
        return dialogue

    def _dialogue(self) -> SmtpSession:
        timeout = self._smtp.timeout.total_seconds()
        if self._context is not None and self._smtp.security == "tls":
            dialogue: SmtpSession = TlsSmtpSession(
                self._smtp.host, timeout=timeout, own_name=self._own_name, context=self._context
            )
        else:
            dialogue = SmtpSession(self._smtp.host, timeout=timeout, own_name=self._own_name)
        dialogue.secrets = self._secrets
        self._own_name = dialogue.local_hostname  # so that the resolver is asked once, not for each connection
        return dialogue

    def _connect(self, dialogue: SmtpSession) -> None:
        try:
            code, text = dialogue.connect(self._smtp.host, self._smtp.port)
        except smtplib.SMTPException as error:
            raise ConnectionLost(Stage.CONNECT, error) from None
        except ssl.SSLError as error:
            self._fail_tls(error)
        except (socket.gaierror, UnicodeError) as error:
            self._fail_lookup(error)
        except ConnectionRefusedError:
            self._fail("refuses connections", "check smtp.port, and that the relay runs", may_pass=True)
        except TimeoutError:
            self._fail("did not answer in time", "check smtp.host, smtp.port and the firewall", may_pass=True)
        except OSError as error:
            reason = error.strerror or error.__class__.__name__
            self._fail(f"cannot be reached ({reason})", "check smtp.host and the network", may_pass=True)
        answer = reply(Stage.CONNECT, code, self._secrets.removed_from(text))
        if code < 0:
            self._fail("does not speak SMTP", "check smtp.port")
        if code != _GREETING:
            cure = "wait until it takes connections, or ask its operator"
            self._fail(f"greeted us with {answer}", cure, may_pass=answer.later)

    def _greet(self, dialogue: SmtpSession) -> None:
        answer = self._asked(Stage.EHLO, dialogue.ehlo)
        if not answer.accepted and answer.code != CLOSING:
            with contextlib.suppress(ConnectionLost):  # it hung up after the refusal: report the refusal
                answer = self._asked(Stage.EHLO, dialogue.helo)
        if not answer.accepted:
            self._refused(answer, "ask its operator whether this machine may use it")

    def _encrypt(self, dialogue: SmtpSession) -> None:
        if not dialogue.has_extn("starttls"):
            cure = "set smtp.security to tls if this port speaks TLS at once, or ask its operator for STARTTLS"
            self._fail("does not offer STARTTLS", cure)
        try:
            # With our context: smtplib's default accepts any certificate.
            answer = self._asked(Stage.STARTTLS, lambda: dialogue.starttls(context=self._context))
        except ssl.SSLError as error:
            self._fail_tls(error)
        if not answer.accepted:
            self._refused(answer, "look at its log, and at its certificate")

    def _log_in(self, dialogue: SmtpSession) -> None:
        username, password = self._smtp.username, self._smtp.password
        if username is None or password is None:
            return
        if self._smtp.security == "none" and not _loopback(dialogue):
            cure = "set smtp.security to starttls or tls"
            self._fail("would get the password in the clear", cure)
        if not dialogue.has_extn("auth"):
            cure = "remove smtp.username, or use the port that takes logins (587 or 465)"
            self._fail("does not offer AUTH", cure)
        secret = password.get_secret_value()
        try:
            answer = self._asked(
                Stage.AUTH,
                lambda: dialogue.login(username, secret),
                hide=(username, base64.b64encode(username.encode()).decode()),
            )
        except (smtplib.SMTPException, binascii.Error):  # it offers no method that smtplib supports
            cure = "ask its operator for PLAIN, LOGIN or CRAM-MD5"
            self._fail("offers no way to log in that we know", cure)
        except UnicodeError:
            self._fail("takes only ASCII in a login", "choose a username and password in ASCII")
        if answer.later:
            self._refused(answer, "wait until it can check logins again, or look at its log")
        if not answer.accepted:
            cure = "check smtp.username and TOKEN_PIPELINES__SMTP__PASSWORD"
            self._fail(f"refused the login with {answer}", cure)

    def _asked(self, stage: Stage, ask: Callable[[], tuple[int, bytes]], hide: Iterable[str] = ()) -> Reply:
        """Run one of smtplib's steps. Returns the answer, whether smtplib returns or raises it."""
        text: bytes | str
        try:
            code, text = ask()
        except smtplib.SMTPServerDisconnected as error:
            raise ConnectionLost(stage, error) from None
        except smtplib.SMTPResponseException as error:
            code, text = error.smtp_code, error.smtp_error
        except (smtplib.SMTPException, ssl.SSLError):  # both are OSErrors, but say more than that no answer came
            raise
        except OSError as error:
            raise ConnectionLost(stage, error) from None
        if code < 0:
            raise ConnectionLost(stage, None)
        octets = text.encode(errors="replace") if isinstance(text, str) else text
        return reply(stage, code, self._secrets.removed_from(octets), hide=hide)

    def _fail_lookup(self, error: socket.gaierror | UnicodeError) -> NoReturn:
        if isinstance(error, OSError) and error.errno == socket.EAI_AGAIN:
            cure = "check the DNS of this machine, and smtp.host"
            self._fail("cannot be looked up, since the resolver did not answer", cure, may_pass=True)
        self._fail("is not known to the resolver", "check smtp.host")

    def _fail_tls(self, error: ssl.SSLError) -> NoReturn:
        if isinstance(error, ssl.SSLCertVerificationError):
            self._fail(
                f"shows a certificate that cannot be verified ({error.verify_message})",
                "set smtp.host to the name in the certificate, or smtp.ca_file to the authority that issued it",
            )
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):  # it restarts or is overloaded
            self._fail("hung up in the TLS handshake", f"look at its log, and check {_PORTS}", may_pass=True)
        self._fail(f"does not speak TLS here ({error.reason or 'handshake failed'})", f"check {_PORTS}")

    def _refused(self, answer: Reply, cure: str) -> NoReturn:
        cure = _WAIT if answer.code == CLOSING else cure
        self._fail(f"answered {answer} to {answer.stage.upper()}", cure, may_pass=answer.later)

    def _fail(self, what: str, cure: str, *, may_pass: bool = False) -> NoReturn:
        msg = f"The relay {self.name} {what}; {cure}."
        raise RelayError(msg, may_pass=may_pass) from None  # what smtplib raised may hold an address or the login


def part(dialogue: SmtpSession) -> None:
    """Send QUIT and close."""
    with contextlib.suppress(smtplib.SMTPException, OSError):
        if dialogue.sock is not None:
            dialogue.wait_at_most(_GOODBYE_SECONDS)
            dialogue.docmd("QUIT")
    dialogue.close()


def _context(smtp: config.Smtp) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=smtp.ca_file)
    except OSError:  # ssl.SSLError is one
        msg = f"smtp.ca_file {smtp.ca_file} cannot be read as certificates; name a readable file in PEM form."
        raise ConfigError(msg) from None


def _loopback(dialogue: SmtpSession) -> bool:
    if dialogue.sock is None:
        return False
    return ipaddress.ip_address(dialogue.sock.getpeername()[0].partition("%")[0]).is_loopback
