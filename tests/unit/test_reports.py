"""Delivery reports as mail systems write them, and as strangers forge and break them.

The samples of Postfix 3.7 and Exim 4.96 are what these programs wrote; those of Sendmail, Office 365, Gmail and Amazon
SES are written after theirs, and so are those in plain text. Hosts are put into the example domains.
"""

import base64
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from token_pipelines.feedback.bounces.reports import READ_AT_MOST, Report, read_report

SAMPLES = Path(__file__).parents[1] / "data" / "bounces"
NOTICE = "1f0c2b8e-5a55-4c0b-9d0e-6a2f4f2f7d11"
OTHER = "0a0a0a0a-5a55-4c0b-9d0e-6a2f4f2f7d11"
ADA = "ada@customer.example.net"
UNKNOWN_IN_TABLE = "5.1.1 <address>: Recipient address rejected: User unknown in virtual mailbox table"

FAILED = Report(notice_ids=(NOTICE,), action="failed", status="5.1.1", address=ADA, code=550, reply="")


def sample(name: str) -> bytes:
    return (SAMPLES / f"{name}.eml").read_bytes()


def read(message: bytes) -> Report:
    report = read_report(message)
    assert report is not None
    return report


def report(*fields: str, before: str = "", returned: str = "", kind: str = "message/delivery-status") -> bytes:
    """A report with these fields about the recipient, as plain as can be."""
    lines = [
        f"To: bounces@example.org\r\n{before}MIME-Version: 1.0",
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b"',
        f"\r\n--b\r\n\r\nSorry.\r\n--b\r\nContent-Type: {kind}\r\n\r\nReporting-MTA: dns; a.example.org",
        "\r\n" + "\r\n".join(fields),
        f"\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n{returned}",
        "\r\n--b--\r\n",
    ]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("postfix-refused", replace(FAILED, reply=UNKNOWN_IN_TABLE)),
        (
            "postfix-no-such-user",
            replace(FAILED, address="nobody-here@example.org", code=None, reply='unknown user: "<address>"'),
        ),
        ("exim-refused", replace(FAILED, reply=UNKNOWN_IN_TABLE)),
        ("exim-no-such-user", replace(FAILED, status="5.0.0", address="nobody-here@example.org", code=None)),
        ("sendmail-refused", replace(FAILED, reply="5.1.1 <address>... User unknown")),
        (
            "office365-no-such-user",
            replace(
                FAILED,
                status="5.1.10",
                reply="5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient <address> not found by SMTP address lookup",
            ),
        ),
        (
            "gmail-no-such-user",
            replace(
                FAILED,
                reply="5.1.1 The email account that you tried to reach does not exist. Please try 550-5.1.1 "
                "double-checking the recipient's email address for typos or 550-5.1.1 unnecessary spaces. For more "
                "information, go to 550 5.1.1 https://support.google.com/mail/?p=NoSuchUser "
                "d2e1a72fcca58-72f8a1b2c3dsor1234567b3a.5 - gsmtp",
            ),
        ),
        ("ses-no-such-user", replace(FAILED, reply="5.1.1 user unknown")),
    ],
)
def test_read_report_no_such_user(name: str, expected: Report) -> None:
    """The notice, the address, the status and the reply, for each author of reports."""
    found = read(sample(name))
    assert found == expected
    assert found.given_up
    assert found.address_is_dead == (
        name != "exim-no-such-user"
    )  # Exim says 5.0.0 of its own users, for whatever cause


def test_read_report_delayed() -> None:
    """Postfix still tries: nothing has failed."""
    found = read(sample("postfix-delayed"))
    assert (found.notice_ids, found.status, found.delayed, found.given_up) == ((NOTICE,), "4.2.2", True, False)
    assert not found.address_is_dead


def test_read_report_gave_up_after_delays() -> None:
    """Days later the action is failed, under the status of the last delay: nobody is told, and the address may live."""
    found = read(sample("postfix-gave-up"))
    assert (found.status, found.delayed, found.given_up, found.address_is_dead) == ("4.2.2", False, True, False)


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("not-a-report-*.eml")), ids=lambda path: path.stem)
def test_read_report_of_something_else(path: Path) -> None:
    """Also when a person's words are those of a report, or a mail system writes of something else."""
    assert read_report(path.read_bytes()) is None


# Reports in plain text


@pytest.mark.parametrize(
    ("name", "status", "code", "reply"),
    [
        (
            "qmail-refused",
            "5.1.1",
            550,
            "192.0.2.7 does not like recipient. Remote host said: 550 5.1.1 <address>: User unknown",
        ),
        ("exim-refused", "5.1.1", 550, None),
        ("exchange-unknown", None, None, None),
        ("gmail-refused", "5.1.1", 550, None),
        ("postfix-refused", "5.1.1", 550, None),
    ],
)
def test_text_report(name: str, status: str | None, code: int | None, reply: str | None) -> None:
    found = read(sample(f"text-{name}"))
    assert (found.notice_ids, found.address, found.status, found.code) == ((NOTICE,), ADA, status, code)
    assert found.given_up
    assert found.address_is_dead == (status == "5.1.1")
    assert reply in (None, found.reply.split(" Giving up")[0])


def test_text_report_of_a_delay() -> None:
    """The library takes it for a failure, because an SMTP answer is quoted in it."""
    found = read(sample("text-exim-delayed"))
    assert (found.action, found.status, found.given_up) == ("delayed", None, False)


@pytest.mark.parametrize("name", ["qmail-refused", "exim-refused", "postfix-refused"])
def test_text_report_counts_only_at_the_address_of_a_notice(name: str) -> None:
    """A returned Message-ID in a text is what anybody can write."""
    elsewhere = sample(f"text-{name}").replace(f"bounces+{NOTICE}@".encode(), b"noreply@")
    assert NOTICE.encode() in elsewhere
    assert read_report(elsewhere) is None


def test_text_report_names_an_address_behind_the_address() -> None:
    found = read(sample("text-qmail-refused").replace(b"ada@customer", b"member@list"))
    assert found.address == "member@list.example.net"


def test_text_report_names_a_local_user() -> None:
    """Whose address that is, nobody can tell."""
    assert read_report(sample("text-qmail-refused").replace(b"<ada@customer.example.net>", b"<ada>")) is None


# Complaints


def test_complaint() -> None:
    found = read(sample("complaint-abuse"))
    assert found == Report(
        notice_ids=(NOTICE,), action="complaint", status=None, address=None, code=None, reply="", is_vague=False
    )
    assert (found.complains, found.given_up, found.address_is_dead) == (True, False, False)


@pytest.mark.parametrize(
    ("kind", "complains"),
    [("ABUSE", True), ("opt-out", True), ("fraud", False), ("not-spam", False), ("auth-failure", False), ("", False)],
)
def test_complaint_kinds(kind: str, complains: bool) -> None:  # noqa: FBT001 -- a column of the table
    text = sample("complaint-abuse").replace(b"Feedback-Type: abuse", f"Feedback-Type: {kind}".encode())
    assert (read_report(text) is not None) == complains


@pytest.mark.parametrize(
    ("recipient", "sent_to", "address"),
    [
        ("<ada@customer.example.net>", ADA, None),
        ("redacted-1b2c@CUSTOMER.example.net", f"Ada <{ADA}>", None),
        ("rfc822; member@list.example.net", ADA, "member@list.example.net"),
        ("redacted", ADA, None),
    ],
)
def test_complaint_of_an_address(recipient: str, sent_to: str, address: str | None) -> None:
    """Providers hide the name before the @. Another domain is a member's of a list, who does not speak for the list."""
    text = (
        sample("complaint-abuse").decode().replace("\nhello", f"\nTo: {sent_to}\n\nhello").replace("\n\nTo:", "\nTo:")
    )
    fields = f"Version: 1\nOriginal-Rcpt-To: {recipient}"
    assert read(text.replace("Version: 1", fields).encode()).address == address


def test_complaint_to_an_address_of_its_own() -> None:
    """A provider sends all complaints to the one address that was registered with it."""
    text = (
        sample("complaint-abuse")
        .replace(f"bounces+{NOTICE}@".encode(), b"fbl@")
        .replace(f"<{NOTICE}@".encode(), b"<x@")
    )
    fields = f"Version: 1\nOriginal-Mail-From: <bounces+{NOTICE}@example.org>".encode()
    assert read(text).notice_ids == ()
    assert read(text.replace(b"Version: 1", fields)).notice_ids == (NOTICE,)


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.eml")), ids=lambda path: path.stem)
def test_read_report_keeps_no_address(path: Path) -> None:
    found = read_report(path.read_bytes())
    assert found is None or ("@" not in found.reply and "nobody-here" not in found.reply)


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.eml")), ids=lambda path: path.stem)
def test_read_report_with_crlf(path: Path) -> None:
    """Files hold either kind of line end."""
    unix = path.read_bytes().replace(b"\r\n", b"\n")
    assert read_report(unix.replace(b"\n", b"\r\n")) == read_report(unix)


# Which notice


@pytest.mark.parametrize("header", ["X-Original-To", "Delivered-To", "Envelope-To", "X-Envelope-To", "To"])
def test_notice_ids_from_verp(header: str) -> None:
    found = read(report("Action: failed", "Status: 5.1.1", before=f"{header}: <bounces+{NOTICE}@example.org>\r\n"))
    assert found.notice_ids == (NOTICE,)


def test_notice_ids_from_verp_that_a_forwarder_rewrote() -> None:
    before = f"Delivered-To: SRS0=aB3x=7Q=example.org=bounces+{NOTICE.upper()}@forwarder.example.net\r\n"
    assert read(report("Action: failed", before=before)).notice_ids == (NOTICE,)


def test_notice_ids_from_envid() -> None:
    assert read(report(f"Original-Envelope-Id: {NOTICE}", "Action: failed")).notice_ids == (NOTICE,)


def test_notice_ids_from_returned_headers() -> None:
    found = read(
        report("Action: failed", returned=f"From: a@example.org\r\nmessage-id:\r\n <{NOTICE}@example.org>\r\n")
    )
    assert found.notice_ids == (NOTICE,)


def test_notice_ids_surest_first() -> None:
    """What the relay was told comes before what the returned message says of itself."""
    third = OTHER.replace("0a0a0a0a", "0c0c0c0c")
    found = read(
        report(
            f"Original-Envelope-Id: {OTHER}",
            "Action: failed",
            before=f"In-Reply-To: <{third}@example.org>\r\nDelivered-To: bounces+{NOTICE}@example.org\r\n",
            returned=f"Message-ID: <{OTHER}@example.org>\r\n",
        )
    )
    assert found.notice_ids == (NOTICE, OTHER, third)


def test_notice_ids_none() -> None:
    assert read(report("Action: failed", "Status: 5.1.1")).notice_ids == ()


# What happened


@pytest.mark.parametrize(
    ("status", "diagnostic", "expected"),
    [
        ("5.1.1", "smtp; 550 5.2.1 disabled", "5.1.1"),
        ("5.0.0", "smtp; 550 5.1.1 no such user", "5.1.1"),
        ("5.0.0 (permanent)", "smtp;550-5.1.1 no such user", "5.1.1"),
        ("5.0.0", "smtp; 450 4.1.1 later", "5.0.0"),
        ("5.0.0", "smtp; 550 blocked by 5.9.9.9 and 15.1.1", "5.0.0"),
        ("", "smtp; 550 5.1.10 gone.", "5.1.10"),
        ("", "smtp; 550 gone", None),
        ("broken", "", None),
    ],
)
def test_status_vague_is_read_from_the_diagnostic(status: str, diagnostic: str, expected: str | None) -> None:
    assert read(report("Action: failed", f"Status: {status}", f"Diagnostic-Code: {diagnostic}")).status == expected


@pytest.mark.parametrize("status", ["5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"])
def test_address_is_dead(status: str) -> None:
    assert read(report("Action: failed", f"Status: {status}")).address_is_dead


@pytest.mark.parametrize("status", ["5.1.0", "5.1.4", "5.1.7", "5.1.8", "5.2.1", "5.2.2", "5.7.1", "5.4.4", "4.1.1"])
def test_address_is_dead_of_no_other_status(status: str) -> None:
    """A full mailbox, a policy, a fault of the sender's: none of it is the address's."""
    assert not read(report("Action: failed", f"Status: {status}")).address_is_dead


@pytest.mark.parametrize("action", ["delivered", "relayed", "expanded", "nonsense"])
def test_given_up_of_no_other_action(action: str) -> None:
    found = read(report(f"Action: {action}", "Status: 5.1.1"))
    assert (found.given_up, found.delayed, found.address_is_dead) == (False, False, False)


@pytest.mark.parametrize(
    "action",
    ["FAILED", "failed (gone)", "(at last) Failed", "expired", "failed; see below", "failure", "error", "  failed  ."],
)
def test_given_up_however_it_is_written(action: str) -> None:
    assert read(report(f"Action: {action}", "Status: 5.1.1")).address_is_dead


@pytest.mark.parametrize("colon", [" :", "\t:", " \t :"])
def test_blank_before_the_colon(colon: str) -> None:
    """In every header, as old software writes them."""
    fields = (
        "Final-Recipient: rfc822; ada@example.org",
        "Action: failed",
        "Status: 5.1.1",
        "Diagnostic-Code: smtp; 550 x",
    )
    written = report(
        *(field.replace(":", colon, 1) for field in fields), before=f"X-Original-To: a+{NOTICE}@example.org\r\n"
    )
    found = read(written.replace(b"X-Original-To:", f"X-Original-To{colon}".encode()))
    assert found == replace(FAILED, address="ada@example.org", reply="x")


@pytest.mark.parametrize(("status", "action"), [("5.1.1", "failed"), ("4.4.1", "delayed"), ("2.0.0", "unknown")])
def test_action_missing_is_read_from_the_status(status: str, action: str) -> None:
    assert read(report(f"Status: {status}")).action == action


def test_action_of_several_recipients_is_the_worst() -> None:
    """An alias with three members behind it."""
    found = read(
        report(
            "Final-Recipient: rfc822; a@example.org\r\nAction: delivered\r\nStatus: 2.0.0\r\n",
            "Final-Recipient: rfc822; b@example.org\r\nAction: FAILED (for good)\r\nStatus: 5.1.1\r\n",
            "Final-Recipient: rfc822; c@example.org\r\nAction: delayed\r\nStatus: 4.4.1",
        )
    )
    assert (found.action, found.address, found.status) == ("failed", "b@example.org", "5.1.1")


@pytest.mark.parametrize(
    ("field", "address"),
    [
        ("rfc822; <Ada@example.org>", "Ada@example.org"),
        ("utf-8; björn@example.org", "björn@example.org"),
        (r"utf-8; bj\x{F6}rn@example.org", "björn@example.org"),
        (r"utf-8; bj\x{FFFFFF}rn@example.org", "bjrn@example.org"),
        ("x400; /C=SE/ADMD=x/", None),
        ("ada", None),
        ("", None),
    ],
)
def test_address_forms(field: str, address: str | None) -> None:
    assert read(report(f"Final-Recipient: {field}", "Action: failed")).address == address


@pytest.mark.parametrize("field", ["rfc822; ada", "x400; /C=SE/ADMD=x/", "rfc822;", "", "unknown"])
def test_address_is_dead_of_nobody_where_the_recipient_is_no_address(field: str) -> None:
    """It names somebody, and nobody can tell whom: perhaps a member of a list."""
    found = read(report(f"Final-Recipient: {field}", "Action: failed", "Status: 5.1.1"))
    assert (found.given_up, found.address, found.address_is_dead) == (True, None, False)


def test_reply_hides_the_name_before_the_at() -> None:
    found = read(
        report(
            "Final-Recipient: rfc822; ada.l@example.org",
            "Original-Recipient: rfc822;bob@example.org",
            "Action: failed",
            "Diagnostic-Code: smtp; 550 5.1.1 Ada.L is no user, nor is bob; see ada.lovelace and bobby",
        )
    )
    assert found.reply == "5.1.1 <address> is no user, nor is <address>; see ada.lovelace and bobby"


# Broken and hostile


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "7BIT", "x-unheard-of"])
def test_read_report_encoded(encoding: str) -> None:
    body = f"Original-Envelope-Id: {NOTICE}\n\nAction: failed\nStatus: 5.1.1\n".encode()
    if encoding == "base64":
        body = base64.encodebytes(body)
    head = 'Content-Type: multipart/report; boundary="b"\n\n--b\nContent-Type: message/delivery-status\n'
    message = f"{head}Content-Transfer-Encoding: {encoding}\n\n".encode() + body + b"\n--b--\n"
    assert read(message) == replace(FAILED, address=None, code=None)


def test_read_report_within_a_gateways_wrapping() -> None:
    inner = sample("postfix-refused").split(b"Content-Type: multipart/report", 1)[1]
    wrapped = b'To: a@example.org\nContent-Type: multipart/mixed; boundary="w"\n\n--w\nContent-Type: multipart/report'
    assert read(wrapped + inner + b"\n--w\n\nScanned.\n--w--\n").status == "5.1.1"


def test_read_report_that_somebody_forwarded() -> None:
    """Attached to a person's message, it is that person's message."""
    forwarded = b'Content-Type: multipart/mixed; boundary="w"\n\n--w\nContent-Type: message/rfc822\n\n'
    assert read_report(forwarded + sample("postfix-refused") + b"\n--w--\n") is None


def test_read_report_in_which_the_returned_message_is_a_report() -> None:
    """Only the outer report counts, whatever our message's text looks like."""
    text = sample("postfix-refused").decode()
    assert read(report("Action: delayed", "Status: 4.4.1", returned=text)).delayed


def test_read_report_wrong_charset() -> None:
    message = (
        sample("postfix-refused")
        .replace(b"User unknown", b"Anv\xe4ndaren \xff\x00 saknas")
        .replace(b"utf-8", b"klingon")
    )
    assert read(message).status == "5.1.1"
    assert read(message).reply.isprintable()


@pytest.mark.parametrize("cut", range(0, 2600, 100))
def test_read_report_cut_off(cut: int) -> None:
    """Read as far as it goes; never an exception."""
    found = read_report(sample("postfix-refused")[:cut])
    assert found is None or found.notice_ids == (NOTICE,)


DIGITS = b"9" * 400_000
BOMBS = {
    "nested": b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (depth, depth) for depth in range(20_000)
    ),
    "attached": b"Content-Type: message/rfc822\n\n" * 30_000,
    "parts": b"Content-Type: multipart/report; boundary=b\n\n" + b"--b\n\n" * 200_000,
    "quoted parameters": b'Content-Type: multipart/report; boundary="' + b';"' * 400_000 + b"\n\n",
    "parameters": b"Content-Type: multipart/report; " + b"a*0*=b; " * 100_000 + b"\n\n",
    "headers": b"".join(b"To: bounces+%d@example.org\n" % number for number in range(30_000)),
    "one header": b"To: " + b"a@example.org, " * 60_000 + b"\n\n",
    "long line": b"x" * READ_AT_MOST,
    "blank lines": report("Action: failed\r\n" + "\n \t" * 200_000),
    "recipients": report("Action: failed\r\nStatus: 5.1.1\r\n\r\n" * 30_000),
    "long fields": report(
        "Action: failed",
        f"Status: 5.1.{DIGITS.decode()}",
        f"Diagnostic-Code: smtp; 550 {'5.1.' * 100_000}",
        f"Final-Recipient: rfc822; {'a' * 400_000}@example.org",
    ),
    "nothing": b"",
    "text": b"From: postmaster@x\nTo: a+1f0c2b8e-5a55-4c0b-9d0e-6a2f4f2f7d11@x\n\n"
    b"Your message\nA message that you sent could not be delivered\nThe following address failed:\n"
    + (b"x" * 990 + b"\n")
    * 1000,
    "blank headers": b"a" * 300_000 + b" " * 300_000 + b"\n" + b"a \t" * 100_000,
    "zeros": bytes(100_000),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_read_report_bomb(bomb: bytes) -> None:
    """Time in proportion to the size, and no recursion: a megabyte of malice costs less than a moment."""
    started = time.process_time()
    read_report(bomb)
    assert time.process_time() - started < 3


def test_read_report_huge_message_is_read_in_part() -> None:
    """The report comes first; our own message comes back after it, at any length."""
    assert read(sample("gmail-no-such-user") + b"x" * (20 * READ_AT_MOST)).status == "5.1.1"


@given(st.binary())
@example(b'Content-Type: multipart/report; boundary="\xff"\n\n--\xff\n')
@example(b"Content-Type: multipart/report; boundary*=klingon''b\n\n--b\n")
@example(b"Content-Type: multipart/report; boundary*0*=klingon''%ff\n\n--b\n")
def test_read_report_any_bytes(message: bytes) -> None:
    read_report(message)


@given(st.data())
def test_read_report_sample_with_any_bytes_in_it(data: st.DataObject) -> None:
    """Whatever is written over a report, the answer is a report or none."""
    good = sample(data.draw(st.sampled_from(["postfix-refused", "gmail-no-such-user", "exim-refused"])))
    at = data.draw(st.integers(0, len(good)))
    junk = data.draw(st.one_of(st.binary(max_size=40), st.sampled_from([b"\r\n\r\n", b"\n--", b"\x00", b";", b'"'])))
    found = read_report(good[:at] + junk + good[at + data.draw(st.integers(0, 60)) :])
    assert found is None or "customer.example.net>" not in found.reply
