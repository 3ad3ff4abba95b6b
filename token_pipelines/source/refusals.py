"""What a database says against a statement, as an error with a cure. Each database module recognises its own.

A message may quote a row's value: such words are never passed on. What blames no statement (a login, a lock, a lost
connection) is explained by database.py.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from token_pipelines.errors import SourceContractError, SourceError

FIX_QUERY: Final = "fix source.query"


class Blame(Enum):
    """What is at fault."""

    STATEMENT = auto()
    VALUE = auto()
    UNKNOWN = auto()
    """The message was written by a function or a constraint, or is of a kind that is not known here."""


@dataclass(frozen=True)
class Refusal:
    """What is at fault, in words that hold no value."""

    blame: Blame
    words: str
    cure: str = FIX_QUERY
    of_a_row: bool = False
    """Whether the database reports a row's value in the way in which it reports a mistake in the statement."""

    def error(self) -> SourceContractError | SourceError:
        """The error to raise where the statement is the source query."""
        match self.blame:
            case Blame.STATEMENT:
                msg = f"The source query is not accepted by the database: {self.words}; {self.cure}."
                return SourceContractError(msg, of_a_row=self.of_a_row)
            case Blame.VALUE:
                cure = "leave such rows out in SQL, or fix the cast or the calculation in source.query"
                msg = f"The source query failed on a row's value ({self.words}); {cure}."
                return SourceError(msg, of_a_row=True)
            case Blame.UNKNOWN:
                cure = "look into its log, or run the query by hand, and fix it"
                msg = f"The source query failed in the database, whose words may hold a value ({self.words}); {cure}."
                return SourceError(msg, of_a_row=True)
