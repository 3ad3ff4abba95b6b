"""A real Postfix of its own for a test: one port on loopback, its own queue, nothing of the system's configuration.

It takes mail for one virtual domain, delivers known users into maildirs, and bounces unknown ones *after* it has
accepted them, as relays do: the report goes back to the envelope's sender.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP
from pathlib import Path
from types import TracebackType
from typing import Final, Self

NOBODY: Final = 65534  # owns the maildirs: virtual delivery needs no user of the system
PATIENCE_S: Final = 30

MAIN: Final = """\
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
maillog_file = {root}/log/mail.log
maillog_file_prefixes = {root}/log
myhostname = relay.example.org
mydestination =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
smtpd_tls_security_level = none
smtp_tls_security_level = none
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_reject_unlisted_recipient = no
smtpd_data_restrictions = reject_unauth_pipelining
smtpd_forbid_unauth_pipelining = yes
virtual_mailbox_domains = {domain}
virtual_mailbox_maps = texthash:{root}/etc/mailboxes
virtual_mailbox_base = {root}/mail
virtual_uid_maps = static:{nobody}
virtual_gid_maps = static:{nobody}
transport_maps = texthash:{root}/etc/routes
recipient_delimiter = +
smtp_host_lookup = native
disable_dns_lookups = yes
biff = no
"""
MASTER: Final = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def find_postfix() -> str | None:
    """The program ``postfix``, which is not on everybody's PATH."""
    return shutil.which("postfix", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


class Postfix:
    """A running Postfix. ``root`` must be a short path that another user may walk through; it is not removed."""

    def __init__(
        self, root: Path, port: int, *, domain: str, users: Sequence[str], routes: Mapping[str, int] | None = None
    ) -> None:
        """Serve ``domain`` with a maildir for each of ``users``; ``routes`` leads other domains to loopback's ports."""
        self._program = find_postfix() or "postfix"
        self._config = root / "etc"
        self._root = root
        self.port = port
        for folder in ("etc", "queue", "data", "log", "mail"):
            (root / folder).mkdir()
        shutil.chown(root / "data", "postfix")
        os.chown(root / "mail", NOBODY, NOBODY)
        files = {
            "main.cf": MAIN.format(root=root, domain=domain, nobody=NOBODY),
            "master.cf": MASTER.format(port=port),
            "mailboxes": "".join(f"{user}@{domain} {user}/\n" for user in users),
            "routes": "".join(f"{name} smtp:[127.0.0.1]:{to}\n" for name, to in (routes or {}).items()),
        }
        for name, text in files.items():
            (self._config / name).write_text(text, encoding="utf-8")

    def __enter__(self) -> Self:
        """Start it."""
        self._run("start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self._run("stop")

    def _run(self, command: str) -> None:
        done = subprocess.run(
            [self._program, "-c", str(self._config), command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"postfix {command}: {done.stderr}\n{self.log}"

    @property
    def log(self) -> str:
        """What it has logged so far."""
        file = self._root / "log" / "mail.log"
        return file.read_text(encoding="utf-8") if file.exists() else ""

    def maildir(self, user: str) -> Path:
        """Where this user's mail is delivered."""
        return self._root / "mail" / user

    def wait_for_mail(self, user: str, number: int) -> list[EmailMessage]:
        """The user's messages, when there are as many."""
        deadline = time.monotonic() + PATIENCE_S
        while len(found := sorted(self.maildir(user).glob("new/*"))) < number:
            assert time.monotonic() < deadline, f"{len(found)} of {number} messages for {user}\n{self.log}"
            time.sleep(0.05)
        parser = BytesParser(policy=SMTP)
        return [parser.parsebytes(file.read_bytes()) for file in found]
