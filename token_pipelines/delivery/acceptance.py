"""Whose trouble it is when the relay does not take a message: one rule for a tier's run. ADR 0018 has the reasons.

Only an accepted message proves that the relay works. So:

- A refusal for good is *believed* when the same run had others accepted, of other domains too (where there are any),
  and the refused are not most of those that were tried; or when it was repeated on three different days, and somebody
  was accepted in that time. Until then the notice is deferred, and nobody is suppressed.
- A run goes on as long as anything is accepted. It stops early when many attempts in a row, to several domains, brought
  nothing.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from token_pipelines.errors import RelayError
from token_pipelines.ledger.refusals import RefusedBefore
from token_pipelines.ledger.settlement import Record
from token_pipelines.model import Outcome, State
from token_pipelines.smtp.answers import is_of_one_mailbox

IN_A_ROW: Final = 20
"""Attempts without an acceptance in between, after which a run may stop early."""

DOMAINS_IN_A_ROW: Final = 3
"""The domains among them, at least; all domains, if there are fewer."""

CHANCE: Final = 1e-6
"""Where many addresses are dead, more attempts in a row are needed: so many that they have this probability if the
relay works as it did before."""

AT_THE_END: Final = 2
"""When nobody is left to be tried, fewer in a row show trouble of the relay's, if none is clearly one mailbox's."""

ALL_REFUSED: Final = 3
"""Recipients refused for good in a run that had nobody accepted: the relay is at fault, not these."""

DAYS: Final = 3
"""Different days on which an address must be refused for good, to be believed on its own."""


@dataclass
class _Row:
    """Attempts without an acceptance in between. ``domains`` is not complete beyond `DOMAINS_IN_A_ROW`."""

    number: int
    attempts: int = 0
    """Once something has been accepted, not counted: a notice's second attempt, what was under way when the first one
    failed, and what is excused. All of these may have met one moment's trouble, or one recipient's."""
    tried: set[str] = field(default_factory=set)
    domains: set[str] = field(default_factory=set)
    suspects: set[str] = field(default_factory=set)
    """Notices whose trouble may be everybody's; not complete beyond `AT_THE_END`."""
    last: Outcome | None = None


class Acceptance:
    """What the relay accepted and refused in one tier's run. ``explain`` puts an outcome into words, with the cure."""

    def __init__(self, explain: Callable[[Outcome], str]) -> None:
        """Nothing has been tried yet."""
        self._explain = explain
        self._attempts = 0
        self._attempts_before_row = 0
        self._accepted = 0
        self._accepted_domains: set[str] = set()  # two are enough: one of them is another domain than the refused one
        self._known_domains: set[str] = set()
        self._not_accepted: set[str] = set()
        self._refused: dict[str, tuple[Record, str]] = {}
        self._row = _Row(0)

    def expect(self, domain: str) -> None:
        """A message to this domain is about to be tried."""
        if len(self._known_domains) < DOMAINS_IN_A_ROW:
            self._known_domains.add(domain)

    @property
    def has_any(self) -> bool:
        """Whether anything has been accepted."""
        return self._accepted > 0

    @property
    def accepted(self) -> int:
        """How many messages were accepted."""
        return self._accepted

    def begin(self) -> int | None:
        """A message is handed out now. Gives the number of the present row; None if its first attempt is to come."""
        return self._row.number if self._row.last is not None else None

    def keep(
        self, record: Record, outcome: Outcome, *, domain: str, begun_in: int | None, is_excused: bool = False
    ) -> None:
        """Take what the relay made of one message.

        Args:
            record: what the ledger keeps of it.
            outcome: what the relay answered; the ledger may keep another state.
            domain: the recipient's.
            begun_in: what `begin` gave when the message was handed out.
            is_excused: whether the relay only asks for a lower rate, and gets it from now on.
        """
        if outcome.state is State.FAILED and outcome.code is None:
            return  # the relay was not asked: it does not offer what this address needs
        self._attempts += 1
        self.expect(domain)
        if outcome.state is State.SENT:
            self._accepted += 1
            if len(self._accepted_domains) < 2:  # noqa: PLR2004 -- see __init__
                self._accepted_domains.add(domain)
            self._not_accepted.discard(record.notice_id)
            self._row = _Row(self._row.number + 1)
            self._attempts_before_row = self._attempts
            return
        self._not_accepted.add(record.notice_id)
        if record.outcome.state is State.FAILED:
            self._refused[record.notice_id] = record, domain
        row = self._row
        is_evidence = begun_in == row.number and not is_excused and record.notice_id not in row.tried
        row.attempts += not self._accepted or is_evidence
        row.tried.add(record.notice_id)
        row.last = outcome
        if len(row.domains) < DOMAINS_IN_A_ROW:
            row.domains.add(domain)
        is_suspect = outcome.state is State.DEFERRED and not is_of_one_mailbox(outcome)
        if is_suspect and len(row.suspects) < AT_THE_END:
            row.suspects.add(record.notice_id)

    @property
    def stopped_by(self) -> RelayError | None:
        """What stops the run early: nothing at all gets through."""
        row = self._row
        if row.attempts < self._enough or len(row.domains) < min(DOMAINS_IN_A_ROW, len(self._known_domains)):
            return None
        return self._trouble(f"None of the last {row.attempts} messages was accepted.")

    @property
    def _enough(self) -> int:
        if self._accepted in {0, self._attempts_before_row}:
            return IN_A_ROW
        share = self._accepted / self._attempts_before_row
        return max(IN_A_ROW, math.ceil(math.log(CHANCE) / math.log(1 - share)))

    @property
    def trouble(self) -> RelayError | None:
        """When all were tried: what is not these recipients' trouble alone."""
        if len(self._row.suspects) >= (AT_THE_END if self._accepted else 1):
            return self._trouble("")
        if not self._accepted and len(self._refused) >= ALL_REFUSED:
            return self._trouble(f"All {len(self._refused)} recipients were refused, so none of this is believed yet.")
        return None

    def _trouble(self, evidence: str) -> RelayError | None:
        if self._row.last is None:
            return None
        return RelayError(f"{self._explain(self._row.last)} {evidence}".rstrip(), may_pass=True)

    @property
    def refused(self) -> list[Record]:
        """The refusals for good."""
        return [record for record, _ in self._refused.values()]

    def believed(self, before: Mapping[str, RefusedBefore]) -> list[Record]:
        """Those of `refused` that lie with the recipient. ``before`` has what the ledger knows, by notice id."""
        return [
            record
            for notice_id, (record, domain) in self._refused.items()
            if self._is_proven(domain) or _is_repeated(before.get(notice_id))
        ]

    def _is_proven(self, domain: str) -> bool:
        tried = self._accepted + len(self._not_accepted)
        domains = self._accepted_domains if self._known_domains == {domain} else self._accepted_domains - {domain}
        return bool(domains) and 2 * len(self._refused) <= tried


def _is_repeated(before: RefusedBefore | None) -> bool:
    return before is not None and before.days >= DAYS and before.is_accepting
