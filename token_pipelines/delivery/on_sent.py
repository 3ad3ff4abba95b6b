"""After sending: tell the source which tokens were written about, where the operator wants that (`source.on_sent`).

Nothing here can change what the ledger says of a notice, or stop a tier. What fails is counted, and done again at the
end of the tier's run, then by later runs: the ledger keeps which notices the source was told of.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Final

from token_pipelines.delivery.counts import TierReport
from token_pipelines.errors import SourceError, TokenPipelinesError, whereabouts
from token_pipelines.ledger.on_sent import SentNotice
from token_pipelines.model import Mode
from token_pipelines.pipeline import Pipeline
from token_pipelines.printable import printable
from token_pipelines.source.on_sent import OnSentStatement

log = logging.getLogger(__name__)

PAGE: Final = 500
"""Notices told of at a time: as many as are claimed at a time."""

REFUSALS_IN_A_ROW: Final = 100
"""So many, and nothing taken in between, and it is the statement that is refused. To find one token among a page of
others takes ten."""

REFUSALS_S: Final = 10.0
"""Nor may refusals in a row take longer: one that waited for a lock would cost that wait again for each half."""


class OnSentRunner:
    """One tier's run. Safe to share between its threads. Does nothing without a statement, or when not live."""

    def __init__(self, pipeline: Pipeline, report: TierReport) -> None:
        """Count into ``report.not_written_back`` what the source could not be told of; None stays where nothing is."""
        self._pipeline = pipeline
        self._report = report
        live = pipeline.config.delivery.mode is Mode.LIVE
        self._write_back = pipeline.on_sent if live else None
        self._failed = False

    def after(self, sent: Sequence[SentNotice]) -> None:
        """Tell the source of a batch that was sent just now. After a failure nothing more until `catch_up`."""
        if self._write_back is None or self._failed:
            return
        telling = _Telling(self._pipeline, self._write_back)
        self._failed = not all(telling.tell(minute) for minute in _by_minute(sent))

    def catch_up(self) -> None:
        """Tell the source of whatever the ledger says it does not know yet; count what it still could not be told."""
        if self._write_back is None:
            return
        since = self._pipeline.leftovers_since(self._pipeline.clock())
        telling = _Telling(self._pipeline, self._write_back)
        missed = 0
        try:
            for notices in self._pipeline.ledger.on_sent.missing(since=since, page=PAGE):
                # What was sent last comes first: what is refused day after day sinks to the end.
                for minute in reversed(list(_by_minute(notices))):
                    missed += telling.tell_in_parts(minute)
        except TokenPipelinesError as error:
            telling.fault = str(error)
        self._report.not_written_back = missed
        self._report.write_back_fault = telling.fault
        if telling.fault and self._write_back.fault != telling.fault:  # once, not once a tier
            self._write_back.fault = telling.fault
            log.error("The source was not told of what was sent; later runs try again. %s", telling.fault)


class _Telling:
    """Runs the statement, and knows a token that is refused from a statement that is, and from a database that is away.

    ``fault`` is why the source could not be told of something; empty while it could.
    """

    def __init__(self, pipeline: Pipeline, write_back: OnSentStatement) -> None:
        self._pipeline = pipeline
        self._write_back = write_back
        self._in_vain = False
        self._refusals = 0
        self._refusals_s = 0.0
        self._named = False
        self.fault = ""

    def tell_in_parts(self, notices: Sequence[SentNotice]) -> int:
        """Tell of these, in ever smaller parts where they are refused; of how many the source could not be told."""
        if self.tell(notices):
            return 0
        if len(notices) > 1 and not self._in_vain:
            middle = len(notices) // 2
            return self.tell_in_parts(notices[:middle]) + self.tell_in_parts(notices[middle:])
        for notice in notices:
            if len(notice.token_ids) > 1:  # it stays to be told, but no token waits for another that is refused
                for token_id in notice.token_ids:
                    self._run([replace(notice, token_ids=(token_id,))])
        return len(notices)

    def tell(self, notices: Sequence[SentNotice]) -> bool:
        """Run the statement for all of these, and keep it in the ledger if that went well."""
        if not self._run(notices):
            return False
        try:
            self._pipeline.ledger.on_sent.keep([notice.notice_id for notice in notices])
        except TokenPipelinesError as error:
            self._give_up(str(error))
        except Exception as error:  # noqa: BLE001 -- as below
            where = whereabouts(error)
            self._give_up(f"What the source was told could not be kept in the ledger ({where}); it is told again.")
        return not self._in_vain

    def _run(self, notices: Sequence[SentNotice]) -> bool:
        if self._in_vain:
            return False
        token_ids = sorted({token_id for notice in notices for token_id in notice.token_ids})
        if not token_ids:
            return True
        started = time.monotonic()
        try:
            self._write_back.run(self._literals(token_ids), max(notice.sent_at for notice in notices))
        except SourceError as error:
            if error.unreachable:
                self._give_up(str(error))
            else:
                self._refused(token_ids, time.monotonic() - started, str(error))
        except TokenPipelinesError as error:
            self._give_up(str(error))
        except Exception as error:  # noqa: BLE001 -- whatever a driver raises, these were sent and stay sent
            sentence = f"source.on_sent failed ({whereabouts(error)}); try the statement by hand."
            self._refused(token_ids, time.monotonic() - started, sentence)
        else:
            self._refusals, self._refusals_s = 0, 0.0
            return True
        return False

    def _literals(self, token_ids: Sequence[str]) -> list[str | int]:
        try:
            return self._pipeline.source.literals(token_ids)
        except SourceError as error:  # of the source itself, which is asked once for the type of its ids
            raise SourceError(str(error), unreachable=True) from None

    def _refused(self, token_ids: Sequence[str], seconds: float, sentence: str) -> None:
        self._refusals += 1
        self._refusals_s += seconds
        self._in_vain = self._refusals >= REFUSALS_IN_A_ROW or self._refusals_s > REFUSALS_S
        if len(token_ids) == 1 and not self._named:
            self._named = True
            self.fault = f"{sentence} Refused by itself: token_id {printable(token_ids[0])}, for one."
        self.fault = self.fault or sentence

    def _give_up(self, sentence: str) -> None:
        self._in_vain = True
        self.fault = sentence


def _by_minute(notices: Sequence[SentNotice]) -> Iterator[list[SentNotice]]:
    """One statement has one `:sent_at`: the latest of those within the same minute."""
    ordered = sorted(notices, key=lambda notice: notice.sent_at)
    for _, minute in groupby(ordered, key=lambda notice: notice.sent_at.replace(second=0, microsecond=0)):
        yield list(minute)
