"""Parses a report: which notice it is about, which address failed, whether delivery was given up.

Three kinds: delivery reports (RFC 3464), the same as plain text, as older mail systems write them, and complaints (ARF,
RFC 5965). Anyone can write to the address that receives bounces, so the input is untrusted. Knows neither files nor the
ledger.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from itertools import chain, islice
from typing import Final

from token_pipelines.bounce_address import tags_in
from token_pipelines.feedback.bounces.mime_parts import (
    Part,
    first_value,
    parts_of,
    read_part,
    split_groups,
    split_head,
    values,
)
from token_pipelines.feedback.bounces.text_reports import read_text
from token_pipelines.model import DEAD_ADDRESS, Stage
from token_pipelines.smtp.session import reply

READ_AT_MOST: Final = 1 << 20
"""Octets of a message that are read. The report stands before the returned message, which may have any size."""

FAILED: Final = "failed"
DELAYED: Final = "delayed"
COMPLAINT: Final = "complaint"

_IDS_AT_MOST: Final = 20
_MENTIONED_AT_MOST: Final = 100
_TAGS_AT_MOST: Final = 200
_HEAD_AT_MOST: Final = 64 << 10
_STATUS_TYPES: Final = frozenset({"message/delivery-status", "message/global-delivery-status"})
_FEEDBACK_TYPES: Final = frozenset({"message/feedback-report"})
_COMPLAINTS: Final = frozenset({"abuse", "opt-out", "opt-out-list"})
_GIVEN_UP: Final = frozenset({"failed", "fail", "failure", "error", "expired"})
"""OpenSMTPD writes ``error``; ``expired`` is from systems that gave up after days."""

_RETURNED_TYPES: Final = frozenset(
    {"message/rfc822", "text/rfc822-headers", "message/rfc822-headers", "message/global", "message/global-headers"}
)
_SENT_TO: Final = ("X-Original-To", "Delivered-To", "Envelope-To", "X-Envelope-To", "To")
"""Headers in which a mail system records the address that a report was sent to, most reliable first."""

_NOTICE_ID: Final = re.compile(r"(?<![0-9a-f-])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-f-])", re.IGNORECASE)
_NOTICE_ID_OCTETS: Final = re.compile(_NOTICE_ID.pattern.encode(), re.IGNORECASE)
_REPORT: Final = re.compile(rb"message/(?:(?:global-)?delivery-status|feedback-report)", re.IGNORECASE)
_COMPLAINT_TYPE: Final = re.compile(rb"message/feedback-report", re.IGNORECASE)
_ENCODED: Final = re.compile(rb"base64|quoted-printable", re.IGNORECASE)
_STATUS: Final = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?!\.?\d)", re.ASCII)
_ANSWER: Final = re.compile(r"\b([45]\d\d)(?=[ -]|$)", re.ASCII)
_COMMENT: Final = re.compile(r"\([^()]*\)")
_WORD: Final = re.compile(r"[a-z]+")
_UTF8_ESCAPE: Final = re.compile(r"\\x\{([0-9a-fA-F]{2,6})\}")  # RFC 6533, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A delivery report on one message of ours, or a complaint about it.

    ``tags`` are what may be tags in the address that it was sent to (`bounce_address`); for a complaint, also in the
    address that the message came from, which a provider gives in a field of its own. ``notice_ids`` are the notices
    that it may be about, the most reliable first. ``address`` is the one that failed, or whose owner complained, as the
    report gives it: keep it in memory only. ``is_vague`` says that the report names a recipient, and not by an email
    address. ``reply`` has addresses removed.
    """

    notice_ids: tuple[str, ...]
    action: str
    status: str | None
    address: str | None
    code: int | None
    reply: str
    is_vague: bool = False
    tags: tuple[str, ...] = ()

    @property
    def given_up(self) -> bool:
        """Whether the mail system gave up: a hard bounce, or a temporary error (4.4.1) that lasted for days."""
        return self.action == FAILED

    @property
    def delayed(self) -> bool:
        """Whether the mail system is still trying."""
        return self.action == DELAYED

    @property
    def complains(self) -> bool:
        """Whether the recipient has told their mail provider that they do not want this message."""
        return self.action == COMPLAINT

    @property
    def address_is_dead(self) -> bool:
        """Whether it failed because the address does not exist."""
        return self.given_up and self.status in DEAD_ADDRESS and not self.is_vague


def mentioned_tags(message: bytes) -> list[str]:
    """What may be tags in the headers of ``message`` and, if it is a complaint, in its first part."""
    text = message[:READ_AT_MOST]
    head = text if _COMPLAINT_TYPE.search(text) else split_head(text)
    return [found.lower() for found in islice(tags_in(head[:_HEAD_AT_MOST].decode("ascii", "replace")), _TAGS_AT_MOST)]


def mentioned_ids(message: bytes) -> set[str]:
    """Every id that ``message`` may name a notice by, found without parsing it where that is possible."""
    text = message[:READ_AT_MOST]
    found = islice((match[0].decode().lower() for match in _NOTICE_ID_OCTETS.finditer(text)), _MENTIONED_AT_MOST)
    ids = set(found)
    if is_a_report(text) and _ENCODED.search(text):
        top = read_part(text)
        parts = [*parts_of(top)]
        groups = _groups(parts, _STATUS_TYPES) + _groups(parts, _FEEDBACK_TYPES)
        ids.update(_unique(_notice_ids(top.headers, parts, groups)))
    return ids


def is_a_report(message: bytes) -> bool:
    """Whether it looks like a delivery report or a complaint, without parsing it."""
    return _REPORT.search(message) is not None


def read_report(message: bytes) -> Report | None:
    """Parse ``message``. None when it is neither a delivery report nor a complaint, or too broken to read."""
    top = read_part(message[:READ_AT_MOST])
    parts = [*parts_of(top)]
    return _delivery_report(top, parts) or _complaint(top, parts) or _text_report(top, parts)


def _delivery_report(top: Part, parts: list[Part]) -> Report | None:
    """A report by RFC 3464."""
    groups = _groups(parts, _STATUS_TYPES)
    recipients = [
        fields for fields in groups if any(name in fields for name in ("Final-Recipient", "Action", "Status"))
    ]
    if not recipients:
        return None
    worst = min(recipients, key=lambda fields: (FAILED, DELAYED, _action(fields)).index(_action(fields)))
    code, text = _diagnostic(worst)
    address = _address(worst)
    return Report(
        notice_ids=_unique(_notice_ids(top.headers, parts, groups)),
        action=_action(worst),
        status=_status(worst),
        address=address,
        code=code,
        reply=text,
        is_vague=address is None and "Final-Recipient" in worst,
        tags=_unique(_tags(top.headers)),
    )


def _complaint(top: Part, parts: list[Part]) -> Report | None:
    """A complaint by RFC 5965. Other reports of this form, as on forged senders, are about no recipient's wish."""
    groups = _groups(parts, _FEEDBACK_TYPES)
    fields = next((group for group in groups if first_value(group, "Feedback-Type").lower() in _COMPLAINTS), None)
    if fields is None:
        return None
    return Report(
        notice_ids=_unique(_notice_ids(top.headers, parts, groups)),
        action=COMPLAINT,
        status=None,
        address=_complaining_address(fields, parts),
        code=None,
        reply="",
        tags=_unique(chain(_tags(top.headers), tags_in(first_value(fields, "Original-Mail-From")))),
    )


def _complaining_address(fields: Message, parts: list[Part]) -> str | None:
    """The address whose owner complained; None if it can be the one that we wrote to.

    Providers replace the part before the ``@`` (RFC 6590). So if the domain is the one in To, it is taken for ours. A
    list's member has another domain, or their mail would have been complained about by the list.
    """
    named = _plain_address(first_value(fields, "Original-Rcpt-To"))
    sent_to = [first_value(headers, "To") for headers in _returned(parts)]
    domain = _domain(named)
    return None if not domain or any(_domain(address) == domain for address in sent_to) else named


def _text_report(top: Part, parts: list[Part]) -> Report | None:
    """A report in plain text. It counts only at the address of a notice: anything else in it may be anybody's words."""
    notice_ids, tags = _unique(_sent_to(top.headers)), _unique(_tags(top.headers))
    found = read_text(top, parts) if notice_ids or tags else None
    if found is None:
        return None
    status = next((match[0] for match in _STATUS.finditer(found.reason) if match[1] == "5"), None)
    code = next((int(match[1]) for match in _ANSWER.finditer(found.reason)), None)
    local_part = found.address.partition("@")[0]
    hide = [found.address, local_part]
    return Report(
        notice_ids=notice_ids,
        action=FAILED if found.is_failure else DELAYED,
        status=status,
        address=found.address,
        code=code,
        reply=reply(Stage.BOUNCE, code or 0, found.reason.lstrip(">: "), hide=hide).text,
        tags=tags,
    )


def _groups(parts: list[Part], kinds: frozenset[str]) -> list[Message]:
    """The groups of fields in the first part of these types."""
    found = next((part for part in parts if part.kind in kinds), None)
    return [] if found is None else [read_part(group).headers for group in split_groups(found.decoded())]


def _returned(parts: list[Part]) -> Iterator[Message]:
    """The headers of the returned message."""
    for part in parts:
        if part.kind in _RETURNED_TYPES:
            yield read_part(part.decoded()).headers


def _unique(notice_ids: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(islice(notice_ids, _IDS_AT_MOST)))


def _tags(top: Message) -> Iterator[str]:
    """Only in the address that the report was sent to: its sender may have copied everything else from a reply."""
    for name in _SENT_TO:
        for value in values(top, name):
            yield from tags_in(value)


def _notice_ids(top: Message, parts: list[Part], groups: list[Message]) -> Iterator[str]:
    """Ids in the address that the report was sent to, in the envelope id, in the returned Message-ID, in References."""
    yield from _sent_to(top)
    for fields in groups:
        for name in ("Original-Envelope-Id", "Original-Mail-From"):
            yield from _ids(first_value(fields, name))
    for headers in _returned(parts):
        yield from _ids(first_value(headers, "Message-ID"))
    for name in ("In-Reply-To", "References"):
        yield from _ids(first_value(top, name))


def _sent_to(top: Message) -> Iterator[str]:
    """Ids in the address that the report was sent to."""
    for name in _SENT_TO:
        for value in values(top, name):
            yield from _ids(value)


def _ids(text: str) -> list[str]:
    return [found.lower() for found in _NOTICE_ID.findall(text)]


def _action(fields: Message) -> str:
    """In lower case, without comments. When it is missing, the class of the status decides."""
    word = _WORD.search(_COMMENT.sub(" ", first_value(fields, "Action").lower()))
    if word is not None:
        return FAILED if word[0] in _GIVEN_UP else word[0]
    return {"5": FAILED, "4": DELAYED}.get(first_value(fields, "Status")[:1], "unknown")


def _status(fields: Message) -> str | None:
    """The enhanced status code. If it is vague (``5.0.0``), the one in the receiving server's answer."""
    found = _STATUS.search(first_value(fields, "Status"))
    said = _STATUS.search(first_value(fields, "Diagnostic-Code"))
    if said is not None and (found is None or (found[1] == said[1] and found[2] == "0")):
        return said[0]
    return found[0] if found is not None else None


def _address(fields: Message) -> str | None:
    """The address that failed; None when the report does not give it as an email address."""
    kind, _, value = first_value(fields, "Final-Recipient").partition(";")
    address = value.strip().strip("<>")
    if kind.strip().lower() == "utf-8":
        address = _UTF8_ESCAPE.sub(lambda match: _character(match[1]), address)
    return address if "@" in address else None


def _plain_address(text: str) -> str:
    return text.rpartition(";")[2].strip().strip("<>")


def _domain(address: str) -> str:
    return address.rpartition("@")[2].strip("<> ").lower() if "@" in address else ""


def _character(code_point: str) -> str:
    try:
        return chr(int(code_point, 16))
    except ValueError:
        return ""


def _diagnostic(fields: Message) -> tuple[int | None, str]:
    """The SMTP code, if any, and the text of the answer, without addresses or their local parts."""
    kind, _, said = first_value(fields, "Diagnostic-Code").partition(";")
    said = (said or kind).strip()
    code = _ANSWER.match(said)
    words = said[code.end() + 1 :] if code else said
    named = (first_value(fields, name) for name in ("Final-Recipient", "Original-Recipient"))
    hide = [*filter(None, (_address(fields), *(text.partition(";")[2].strip() for text in named)))]
    return (int(code[1]) if code else None), reply(Stage.BOUNCE, int(code[1]) if code else 0, words, hide=hide).text
