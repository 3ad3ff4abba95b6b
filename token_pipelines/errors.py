"""The errors an operator can meet. Each message is one sentence that ends with the cure.

A message never holds an address, a token's secret or a password: it is shown in the Dagster UI and in logs.
"""

import re
from traceback import extract_tb


def shown(value: object) -> str:
    """What an operator wrote, in quotes; not where a URL at the wrong key, or something else, may hold a password."""
    return "what is written" if re.search(r"@|passw|pwd|secret", str(value), re.IGNORECASE) else repr(value)


def whereabouts(error: BaseException) -> str:
    """The kind of an error and where it was raised, without its message, which may quote an address."""
    frames = extract_tb(error.__traceback__)
    line = f" at {frames[-1].name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{line}"


class TokenPipelinesError(Exception):
    """Something that the operator can fix; ``exit_status`` is what the command line returns."""

    exit_status = 1


class ConfigError(TokenPipelinesError):
    """The configuration or the command is wrong. Cure: change the named key or option."""

    exit_status = 2


class TemplateError(ConfigError):
    """A template is missing, does not parse or names something unknown. Cure: fix the named file."""


class SourceContractError(ConfigError):
    """The source query does not return what the contract asks for. Cure: fix the query, as the message says."""


class SourceError(TokenPipelinesError):
    """The source database cannot be read, or a row in it breaks the contract. Nothing is sent.

    ``may_pass``: reading again on a new connection may succeed, as after a replica's conflict or a lost connection.
    ``unreachable``: no connection could be made. Reading again may then succeed if there was a connection before.
    """

    def __init__(self, message: str, *, may_pass: bool = False, unreachable: bool = False) -> None:
        """The sentence, and whether to read again before giving up."""
        super().__init__(message)
        self.may_pass = may_pass
        self.unreachable = unreachable


class LedgerError(TokenPipelinesError):
    """The ledger cannot be reached or written. Nothing is sent without it."""


class RelayError(TokenPipelinesError):
    """The mail relay takes no message at all: it is unreachable, refuses the login, or refuses by policy.

    What was not sent waits in the ledger. Cure: run the tier again once the relay works. ``may_pass``: trying again on
    a new connection after a pause may succeed, as after a lost connection or a 421, but not after a refused login.
    """

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        """The sentence, and whether to try again before giving up."""
        super().__init__(message)
        self.may_pass = may_pass


class FuseTripped(TokenPipelinesError):  # noqa: N818 -- a fuse that trips does its work
    """More notices are new than ``delivery.max_notices`` allows; nothing was planned. Cure: look, then approve."""


class DemoError(TokenPipelinesError):
    """The sample registry or the local inbox cannot be started."""
