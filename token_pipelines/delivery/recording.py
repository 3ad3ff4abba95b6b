"""What became of messages, on its way into the ledger: recorded in groups, counted, told to the source afterwards."""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import replace
from datetime import datetime
from typing import Final

from token_pipelines.delivery.counts import TierCounts
from token_pipelines.delivery.emails import Email
from token_pipelines.delivery.helper_pool import HelperPool
from token_pipelines.delivery.on_sent import OnSentRunner
from token_pipelines.errors import TokenPipelinesError
from token_pipelines.ledger.on_sent import SentNotice
from token_pipelines.ledger.sending import Sending
from token_pipelines.ledger.settlement import Record
from token_pipelines.model import Outcome, Stage, State

log = logging.getLogger(__name__)

TOLD_AT_ONCE: Final = 500
"""Notices after which `source.on_sent` is run while others are being sent."""


class Recorder:
    """One tier's run. An outcome is recorded at the end of the turn in which it is heard.

    ``is_lost`` is set when the ledger fails. Then nothing is marked any more, and what is still heard is recorded at
    the end, in one more try.
    """

    def __init__(
        self,
        sending: Sending,
        counts: TierCounts,
        on_sent: OnSentRunner,
        *,
        helpers: HelperPool,
        clock: Callable[[], datetime],
    ) -> None:
        """Nothing has been heard yet."""
        self.is_lost = False
        self._sending = sending
        self._counts = counts
        self._on_sent = on_sent
        self._helpers = helpers
        self._clock = clock
        self._records: list[Record] = []
        self._sent: list[SentNotice] = []
        self._telling: list[Future[None]] = []

    @property
    def has_records(self) -> bool:
        """Whether outcomes wait to be recorded."""
        return bool(self._records)

    def keep(self, email: Email, outcome: Outcome) -> Record:
        """Record and count an outcome; gives the record."""
        notice = email.resolved.notice
        if notice.claimed_from is State.UNKNOWN and outcome.state is not State.SENT:
            outcome = replace(outcome, state=State.UNKNOWN)  # the first copy may have been delivered
        at, address_hash = self._clock(), email.resolved.address_hash
        record = Record(notice_id=notice.notice_id, outcome=outcome, at=at, address_hash=address_hash)
        self._records.append(record)
        if outcome.state is State.SENT:
            token_ids = tuple(token.token_id for token in email.resolved.tokens)
            self._sent.append(SentNotice(notice_id=notice.notice_id, token_ids=token_ids, sent_at=at))
        self._counts.keep(record)
        return record

    def keep_fault(self, email: Email) -> None:
        """Put off an email that cannot be written."""
        self.keep(email, Outcome(state=State.DEFERRED, stage=Stage.CONNECT, reply=email.fault))

    def settle(self, marks: Mapping[str, datetime]) -> set[str]:
        """Record what is kept and mark these notices, in one commit; gives those that may be sent now.

        Raises:
            TokenPipelinesError: the ledger is in trouble. None of these notices may be sent.
        """
        if self.is_lost or not (self._records or marks):
            return set()
        try:
            mine = self._sending.settle(self._records, marks)
        except BaseException:
            self.is_lost = True
            raise
        self._records = []
        if len(self._sent) >= TOLD_AT_ONCE:
            sent, self._sent = self._sent, []
            self._telling.append(self._helpers.run(self._on_sent.after, sent))
        return mine

    def finish(self) -> None:
        """Once more record what could not be; then tell the source of what was sent."""
        try:
            if self.is_lost:
                self._sending.settle_again(self._records)
                self._records = []
        except TokenPipelinesError as error:
            log.warning("%d outcomes could not be recorded; they stay in doubt. %s", len(self._records), error)
            unrecorded = {record.notice_id for record in self._records}
            self._sent = [sent for sent in self._sent if sent.notice_id not in unrecorded]
        wait(self._telling)
        self._on_sent.after(self._sent)
