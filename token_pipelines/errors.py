"""The errors an operator can meet. Each message is one sentence that ends with the cure.

A message never holds an address, a token's secret or a password: it is shown in the Dagster UI and in logs.
"""

from traceback import extract_tb


def whereabouts(error: BaseException) -> str:
    """The kind of an error and where it was raised, without its message: that may quote an address."""
    frames = extract_tb(error.__traceback__)
    place = f" at {frames[-1].name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


class TokenPipelinesError(Exception):
    """Something went wrong that the operator can mend; ``exit_status`` is what the command line returns."""

    exit_status = 1


class ConfigError(TokenPipelinesError):
    """The configuration or the command is wrong. Cure: change the named key or option."""

    exit_status = 2


class TemplateError(ConfigError):
    """A template is missing, does not parse or names something unknown. Cure: mend the named file."""


class SourceContractError(ConfigError):
    """The source query does not return what the contract asks for. Cure: mend the query, as the message says."""


class SourceError(TokenPipelinesError):
    """The source database cannot be read, or a row in it breaks the contract. Nothing is sent.

    ``may_pass`` is true of what a new connection may end: a replica's conflict, a lost connection. ``unreachable`` is
    true where there is no connection: that may pass too when there was one a moment ago.
    """

    def __init__(self, message: str, *, may_pass: bool = False, unreachable: bool = False) -> None:
        """The sentence, and whether to read again before giving up."""
        super().__init__(message)
        self.may_pass = may_pass
        self.unreachable = unreachable


class LedgerError(TokenPipelinesError):
    """The ledger cannot be reached or is not ours to write. Nothing is sent without it."""


class RelayError(TokenPipelinesError):
    """The mail relay is in trouble as a whole: unreachable, refuses the login, or refuses by policy.

    What was not sent waits in the ledger; run the tier again when the relay is well. ``may_pass`` is true of trouble
    that a pause and a new connection may end (a lost connection, a 421), false of a refused login or sender.
    """

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        """The sentence, and whether to try again before giving up."""
        super().__init__(message)
        self.may_pass = may_pass


class FuseTripped(TokenPipelinesError):  # noqa: N818 -- a fuse that did its work is no error
    """More notices are new than ``delivery.max_notices`` allows; nothing was planned. Cure: look, then approve."""


class DemoError(TokenPipelinesError):
    """The sample registry or the local inbox cannot be started."""
