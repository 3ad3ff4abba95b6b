"""An email on its way: what it is about, when it was read and written, and whether either is too long ago."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from token_pipelines.delivery.resolving import ResolvedNotice
from token_pipelines.envelope import Envelope
from token_pipelines.errors import whereabouts
from token_pipelines.pipeline import Pipeline

log = logging.getLogger(__name__)

READ_AGAIN_AFTER: Final = timedelta(minutes=1)
"""Where sending is slow, what was read of a token gets old: it may be revoked by the time its turn comes."""

WRITTEN_AGAIN_AFTER: Final = timedelta(seconds=10)
"""The same of an email, which says how much time is left."""


@dataclass(kw_only=True, slots=True, eq=False)
class Email:
    """A resolved notice as of the instant ``at``."""

    resolved: ResolvedNotice
    read_at: datetime
    """When its tokens were read."""
    at: datetime
    written_at: datetime
    envelope: Envelope | None
    fault: str = ""
    """Why it could not be written; then there is no envelope."""
    tries: int = 0
    """Connections that were lost with it before it was marked."""
    goes_as_it_stands: bool = False
    """Whether it took so long to write that it would be old each time: it is sent as it was read and written."""
    begun_in: int | None = None
    """What `Acceptance.begin` gave when it was handed out."""
    is_marked: bool = False
    """Whether the ledger says that its text may have gone out."""

    @property
    def notice_id(self) -> str:
        """The notice's."""
        return self.resolved.notice.notice_id

    @property
    def domain(self) -> str:
        """The domain that it is sent to."""
        return "" if self.envelope is None else self.envelope.recipient.rpartition("@")[2].lower()

    def must_be_read_again(self, now: datetime) -> bool:
        """Whether its tokens were read too long ago."""
        return not self.goes_as_it_stands and is_read_too_long_ago(self.read_at, now)

    def must_be_written_again(self, now: datetime) -> bool:
        """Whether it was written too long ago."""
        return not self.goes_as_it_stands and now - self.written_at > WRITTEN_AGAIN_AFTER


def is_read_too_long_ago(read_at: datetime, now: datetime) -> bool:
    """Whether tokens that were read at this instant must be read again."""
    return now - read_at > READ_AGAIN_AFTER


def write(pipeline: Pipeline, resolved: ResolvedNotice, *, read_at: datetime, tries: int = 0) -> Email:
    """The email about a notice that has a recipient."""
    assert resolved.recipient is not None  # noqa: S101 -- `batches` keeps the others
    now = pipeline.clock()
    # One in doubt is written as of its first try, which is what the mark keeps: both copies are the same bytes.
    at = resolved.notice.first_tried_at or now
    envelope, fault = None, ""
    try:
        message_id = resolved.notice.message_id
        envelope = pipeline.channel.write(resolved.recipient, resolved.tokens, message_id=message_id, at=at)
    except Exception as error:  # noqa: BLE001 -- one email that cannot be written must not stop the next
        log.error("Notice %s could not be written: %s", resolved.notice.notice_id, whereabouts(error))  # noqa: TRY400 -- a traceback may quote an address
        fault = f"the email could not be written ({whereabouts(error)})"
    return Email(
        resolved=resolved,
        read_at=read_at,
        at=at,
        written_at=now,
        envelope=envelope,
        fault=fault,
        tries=tries,
        goes_as_it_stands=pipeline.clock() - now > WRITTEN_AGAIN_AFTER,
    )


def write_again(pipeline: Pipeline, email: Email) -> Email:
    """The same, as of now."""
    return write(pipeline, email.resolved, read_at=email.read_at, tries=email.tries)
