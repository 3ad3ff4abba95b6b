"""The local inbox keeps what it accepts, and shows it without believing it."""

import email
import email.policy
import re
import smtplib
import socket
import time
from email.message import EmailMessage
from html import unescape
from pathlib import Path

import pytest

from token_pipelines.demo.inbox import Inbox, write_index
from token_pipelines.errors import DemoError

HOSTILE = "<script>alert(1)</script>"


def _message(subject: str = "Your token expires in 3 days", html: str | None = None) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Example Registry <noreply@example.org>"
    message["To"] = "ada@example.org"
    message["Date"] = "Fri, 20 Nov 2026 09:00:00 +0000"
    message["Subject"] = subject
    message.set_content("Zoë, your token ends.\n.\n.. dots\n")
    if html is not None:
        message.add_alternative(html, subtype="html")
    return message


def _send(inbox: Inbox, message: EmailMessage, to: str = "ada@example.org") -> tuple[int, bytes]:
    with smtplib.SMTP(inbox.host, inbox.port, timeout=10) as client:
        client.ehlo()
        client.mail("bounces@example.org")
        client.rcpt(to)
        return client.data(message.as_bytes(policy=email.policy.SMTP))


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_inbox_keeps_the_message_as_sent(tmp_path: Path) -> None:
    message = _message(html="<p>Zoë</p>")
    with Inbox(tmp_path) as inbox:
        answer = _send(inbox, message)

    assert answer == (250, b"2.0.0 Ok: queued as 00001")
    assert _names(tmp_path) == ["00001-ada@example.org.eml"]
    assert (tmp_path / "00001-ada@example.org.eml").read_bytes() == message.as_bytes(policy=email.policy.SMTP)


def test_inbox_keeps_a_message_with_two_recipients_once(tmp_path: Path) -> None:
    with Inbox(tmp_path) as inbox, smtplib.SMTP(inbox.host, inbox.port, timeout=10) as client:
        client.send_message(_message(), to_addrs=["b@example.org", "a@example.org"])

    assert _names(tmp_path) == ["00001-b@example.org.eml"]


def test_inbox_recipient_cannot_name_a_path(tmp_path: Path) -> None:
    with Inbox(tmp_path) as inbox:
        _send(inbox, _message(), to='"../../up"@example.org')
        _send(inbox, _message(), to=f"{'x' * 200}@example.org")

    assert _names(tmp_path) == ["00001-.._.._up@example.org.eml", f"00002-{'x' * 64}.eml"]


def test_inbox_started_again_goes_on_counting(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path)
    for _ in range(2):
        with inbox:
            _send(inbox, _message())
    with Inbox(tmp_path) as another:
        _send(another, _message())

    assert [name[:5] for name in _names(tmp_path)] == ["00001", "00002", "00003"]


def test_inbox_two_at_once_have_ports_of_their_own(tmp_path: Path) -> None:
    with Inbox(tmp_path / "a") as first, Inbox(tmp_path / "b") as second:
        assert first.port != second.port
        _send(second, _message())

    assert (_names(tmp_path / "a"), _names(tmp_path / "b")) == ([], ["00001-ada@example.org.eml"])


def test_inbox_stopped_listens_no_more(tmp_path: Path) -> None:
    with Inbox(tmp_path) as inbox:
        pass

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((inbox.host, inbox.port), timeout=5)


def test_inbox_on_a_taken_port_says_so(tmp_path: Path) -> None:
    with Inbox(tmp_path / "a") as first:
        second = Inbox(tmp_path / "b", port=first.port)
        with pytest.raises(DemoError, match=rf"cannot listen on 127\.0\.0\.1:{first.port} .* choose another port\.$"):
            second.start()


def test_inbox_that_cannot_write_asks_to_try_again(tmp_path: Path) -> None:
    with Inbox(tmp_path / "inbox") as inbox:
        (tmp_path / "inbox").rename(tmp_path / "gone")
        code, _ = _send(inbox, _message())

    assert code == 451


def test_write_index_lists_the_newest_first(tmp_path: Path) -> None:
    with Inbox(tmp_path) as inbox:
        for number in range(3):
            _send(inbox, _message(f"Notice {number}"))

    index = write_index(tmp_path)

    assert index == tmp_path / "index.html"
    page = index.read_text(encoding="utf-8")
    assert re.findall(r'href="(.*?)">(.*?)<', page) == [
        ("00003-ada%40example.org.html", "Notice 2"),
        ("00002-ada%40example.org.html", "Notice 1"),
        ("00001-ada%40example.org.html", "Notice 0"),
    ]
    assert "Fri, 20 Nov 2026 09:00:00 +0000" in page


def test_write_index_of_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert "No message has arrived yet" in write_index(tmp_path).read_text(encoding="utf-8")


def test_write_index_escapes_everything(tmp_path: Path) -> None:
    html = f'<p title="a&quot;b">Hello</p>{HOSTILE}"></iframe>{HOSTILE}'
    message = _message(f"Zoë {HOSTILE}", html)
    message["X-Note"] = f'"{HOSTILE}'
    with Inbox(tmp_path) as inbox:
        _send(inbox, message)

    index = write_index(tmp_path).read_text(encoding="utf-8")
    page = (tmp_path / "00001-ada@example.org.html").read_text(encoding="utf-8")

    assert "<script" not in index + page
    assert page.count("</iframe>") == 1
    assert "Zoë &lt;script&gt;alert(1)&lt;/script&gt;" in index
    (frame,) = re.findall(r'<iframe sandbox="" title="HTML part" srcdoc="([^"]*)"></iframe>', page)
    assert unescape(frame).strip() == html
    (text,) = re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)
    assert unescape(text).splitlines() == ["Zoë, your token ends.", ".", ".. dots"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no header at all",
        b"Subject: =?nonsense?q?=ff?=\r\nContent-Type: text/plain; charset=nonsense\r\n\r\n\xff\xfe",
        b"Subject: =?utf-8?b?!!!?=\nContent-Type: multipart/mixed; boundary=x\n\n--y",
        b"Subject: \xff\xfe\r\nContent-Transfer-Encoding: base64\r\n\r\n%%%",
    ],
)
def test_write_index_of_a_broken_message_still_lists_it(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "00001-a@example.org.eml").write_bytes(raw)

    assert "00001-a%40example.org.html" in write_index(tmp_path).read_text(encoding="utf-8")


def test_write_index_again_reads_no_more_than_the_heads(tmp_path: Path) -> None:
    """Thousands of emails are listed anew each time that one comes: what was shown before is not read whole again."""
    raw = _message(html="<p>Hello</p>\n" * 4000).as_bytes(policy=email.policy.SMTP)
    for number in range(100):
        (tmp_path / f"{number:05d}-a@example.org.eml").write_bytes(raw)

    def seconds() -> float:
        started = time.process_time()
        write_index(tmp_path)
        return time.process_time() - started

    first = seconds()
    assert min(seconds(), seconds()) < first / 3
