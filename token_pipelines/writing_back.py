"""After sending: tell the source which tokens were written about, where the operator wants that (`source.on_sent`).

Nothing here can change what the ledger says of a notice, or stop a tier. What fails is counted, and done again at the
end of the tier's run, then by later runs: the ledger keeps which notices the source was told of.
"""

import logging
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from token_pipelines.errors import TokenPipelinesError, whereabouts
from token_pipelines.ledger.written_back import SentNotice
from token_pipelines.model import Mode
from token_pipelines.parts import Parts
from token_pipelines.planning import leftovers_since
from token_pipelines.tally import TierReport

log = logging.getLogger(__name__)

PAGE: Final = 500
"""Notices told of at a time: as many as are claimed at a time."""


class WritingBack:
    """One tier's run. Safe to share between its threads. Does nothing without a statement, or when not live."""

    def __init__(self, parts: Parts, report: TierReport) -> None:
        """Count into ``report.not_written_back`` what the source could not be told of; None stays where nothing is."""
        self._parts = parts
        self._report = report
        live = parts.config.delivery.mode is Mode.LIVE
        self._write_back = parts.write_back if live else None
        self._failed = False

    def after(self, sent: Sequence[SentNotice]) -> None:
        """Tell the source of a batch that was sent just now. After a failure nothing more until `catch_up`."""
        if sent and not self._failed:
            self._tell(sent)

    def catch_up(self) -> None:
        """Tell the source of whatever the ledger says it does not know yet; count what it still could not be told."""
        if self._write_back is None:
            return
        self._failed = False
        since = leftovers_since(self._parts, self._parts.clock())
        missed = 0
        try:
            for notices in self._parts.ledger.written_back.missing(since=since, page=PAGE):
                if self._failed or not self._tell(notices):
                    missed += len(notices)
        except TokenPipelinesError as error:
            self._fail(str(error))
        self._report.not_written_back = missed

    def _tell(self, notices: Sequence[SentNotice]) -> bool:
        if self._write_back is None:
            return True
        try:
            for minute in _by_minute(notices):
                token_ids = sorted({token_id for notice in minute for token_id in notice.token_ids})
                self._write_back.run(self._parts.source.literals(token_ids), max(notice.sent_at for notice in minute))
                self._parts.ledger.written_back.keep([notice.notice_id for notice in minute])
        except TokenPipelinesError as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001 -- whatever a driver raises, these were sent and stay sent
            self._fail(f"source.on_sent failed ({whereabouts(error)}); try the statement by hand.")
        return not self._failed

    def _fail(self, sentence: str) -> None:
        self._failed = True
        self._report.write_back_fault = sentence
        if self._write_back is not None and self._write_back.fault != sentence:  # once, not once a tier
            self._write_back.fault = sentence
            log.error("The source was not told of what was sent; later runs try again. %s", sentence)


def _by_minute(notices: Sequence[SentNotice]) -> Iterator[list[SentNotice]]:
    """One statement has one `:sent_at`: the latest of those within the same minute."""
    ordered = sorted(notices, key=lambda notice: notice.sent_at)
    for _, minute in groupby(ordered, key=lambda notice: notice.sent_at.replace(second=0, microsecond=0)):
        yield list(minute)
