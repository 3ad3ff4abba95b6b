"""The notices of a tier, claimed and read again batch by batch, one batch ahead, in a helper thread."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from token_pipelines.delivery.helper_pool import HelperPool
from token_pipelines.delivery.resolving import ResolvedNotice, resolve
from token_pipelines.errors import TokenPipelinesError
from token_pipelines.ledger.sending import Sending
from token_pipelines.model import Notice, Reason, UnreadableRow
from token_pipelines.pipeline import Pipeline

CLAIM_SIZE: Final = 1000
"""Notices claimed and read again at a time, at most: a batch costs the source a query."""

SHARES: Final = 8
"""Batches that a small tier is cut into, so that two runs share its work. They have at least `SMALLEST` notices."""

SMALLEST: Final = 10

CLAIM_SECONDS: Final = 20
"""How long a batch may last at the configured rate. With the next one this is less than until it is read again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What came of some notices."""

    to_send: list[ResolvedNotice]
    skipped: list[tuple[str, Reason]]
    unreadable: list[UnreadableRow]
    read_at: datetime


class Batches:
    """Gives notices to send, one by one, inside a ``with`` block.

    ``on_more`` is called from the helper thread when a batch has been read.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        sending: Sending,
        notice_ids: Sequence[str],
        *,
        helpers: HelperPool,
        on_skip: Callable[[str, Reason], None],
        on_unreadable: Callable[[Sequence[UnreadableRow]], None],
    ) -> None:
        """Begin to read the first batch.

        ``on_skip`` gets the notices in which nothing is left to say, ``on_unreadable`` the rows that cannot be read.
        """
        self._pipeline = pipeline
        self._sending = sending
        self._helpers = helpers
        self.on_more: Callable[[], None] = lambda: None
        self._shares = _shares(notice_ids, pipeline.config.smtp.rate)
        self._again: list[Notice] = []
        self._ready: deque[tuple[ResolvedNotice, datetime]] = deque()
        self._on_skip = on_skip
        self._on_unreadable = on_unreadable
        self._coming: Future[Batch] | None = None
        self._ask()

    @property
    def is_ready(self) -> bool:
        """Whether `next` would find out something new."""
        return bool(self._ready) or (self._coming is not None and self._coming.done())

    @property
    def is_exhausted(self) -> bool:
        """Whether there is nothing more to come."""
        return not self._ready and self._coming is None

    def next(self) -> tuple[ResolvedNotice, datetime] | None:
        """The next notice to send, and when it was read; None where a batch is being read, or nothing is left.

        Raises:
            TokenPipelinesError: the source or the ledger is in trouble.
        """
        if not self._ready and self._coming is not None and self._coming.done():
            self._take(self._coming)
            self._ask()
        return self._ready.popleft() if self._ready else None

    def read_again(self, resolved: Sequence[ResolvedNotice]) -> None:
        """Read these once more: what was read of them is too old."""
        self._again += [one.notice for one in resolved]
        if self._coming is None:
            self._ask()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the batch that is being read, so that what it skips is counted; not after an exception."""
        if self._coming is not None and error is None:
            with suppress(TokenPipelinesError):
                self._take(self._coming)

    def _take(self, coming: Future[Batch]) -> None:
        self._coming = None
        batch = coming.result()
        self._ready.extend((resolved, batch.read_at) for resolved in batch.to_send)
        for notice_id, reason in batch.skipped:
            self._on_skip(notice_id, reason)
        self._on_unreadable(batch.unreadable)

    def _ask(self) -> None:
        if self._again:
            again, self._again = self._again, []
            self._coming = self._helpers.read(_resolved, self._pipeline, self._sending, again)
        elif share := next(self._shares, None):
            self._coming = self._helpers.read(_claimed, self._pipeline, self._sending, share)
        else:
            return
        self._coming.add_done_callback(lambda _: self.on_more())


def _shares(notice_ids: Sequence[str], rate: float | None) -> Iterator[Sequence[str]]:
    size = min(CLAIM_SIZE, max(SMALLEST, len(notice_ids) // SHARES))
    if rate is not None:
        size = min(size, int(rate * CLAIM_SECONDS))
    size = max(1, size)
    first = max(1, size // 4)  # sending begins sooner
    yield notice_ids[:first]
    for start in range(first, len(notice_ids), size):
        yield notice_ids[start : start + size]


def _claimed(pipeline: Pipeline, sending: Sending, notice_ids: Sequence[str]) -> Batch:
    delivery = pipeline.config.delivery
    resend = delivery.on_unknown == "resend"
    claimed = sending.claim(notice_ids, resend=resend, max_attempts=delivery.max_attempts)
    return _resolved(pipeline, sending, claimed)


def _resolved(pipeline: Pipeline, sending: Sending, notices: Sequence[Notice]) -> Batch:
    """Read the tokens again; skip notices in which nothing is left to say, and drop what else is not worth saying."""
    to_send: list[ResolvedNotice] = []
    skipped: list[tuple[str, Reason]] = []
    unreadable: list[UnreadableRow] = []
    for resolved in resolve(pipeline, notices, pipeline.clock()) if notices else ():
        unreadable += resolved.unreadable
        if resolved.recipient is None:
            sending.skip(resolved.notice, resolved.reason)
            skipped.append((resolved.notice.notice_id, resolved.reason))
        else:
            to_send.append(_without_dropped(sending, resolved))
    # Not before: however slow the source is, each read must lead to a message.
    return Batch(to_send=to_send, skipped=skipped, unreadable=unreadable, read_at=pipeline.clock())


def _without_dropped(sending: Sending, resolved: ResolvedNotice) -> ResolvedNotice:
    """The notice without the tokens that are dropped now: planning may use them again, and so may not this notice."""
    if not resolved.dropped:
        return resolved
    sending.drop(resolved.notice, resolved.dropped)
    kept = tuple(token for token in resolved.notice.tokens if token.token_id not in resolved.dropped)
    return replace(resolved, notice=replace(resolved.notice, tokens=kept), dropped={})
