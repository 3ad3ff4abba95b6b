"""The circuit breaker: whether the relay's trouble with one message is that recipient's, or everybody's.

A refusal by policy (5.7.x), a 421 or a lost connection mostly means all of us. But some relays say so of one mailbox,
and one recipient must not keep the others from their notices, run after run: theirs is put off, and the next is tried.
When several in a row have the same trouble, it is everybody's.
"""

from typing import Final

from token_pipelines.errors import RelayError

IN_A_ROW: Final = 3
"""Notices of different people, with nothing accepted in between, that trip it."""

IN_A_ROW_AT_THE_END: Final = 2
"""The same when nobody is left to be tried."""


class Breaker:
    """One tier's run."""

    def __init__(self) -> None:
        """Nothing has been sent yet."""
        self._suspects: dict[str, RelayError] = {}
        self._any_accepted = False

    def accepted(self) -> None:
        """The relay took a message: earlier trouble was that of single recipients."""
        self._suspects.clear()
        self._any_accepted = True

    def trips(self, notice_id: str, trouble: RelayError) -> bool:
        """Whether this notice's trouble, after that of those before it, must be everybody's."""
        self._suspects[notice_id] = trouble
        return len(self._suspects) >= IN_A_ROW

    @property
    def trouble(self) -> RelayError | None:
        """When all were tried: the first trouble of the last ones in a row, if it was not one recipient's alone."""
        enough = IN_A_ROW_AT_THE_END if self._any_accepted else 1
        return next(iter(self._suspects.values())) if len(self._suspects) >= enough else None
