"""The errors that operators can see. Each message is one sentence that ends with the cure.

Messages are shown in the Dagster UI and in logs, so they never contain an address, a token's secret or a password.
"""

import re
from traceback import extract_tb

from token_pipelines.printable import printable_lines


def shown(value: object) -> str:
    """What an operator wrote, in quotes; not where a URL at the wrong key, or something else, may hold a password."""
    return "what is written" if re.search(r"@|passw|pwd|secret", str(value), re.IGNORECASE) else repr(value)


def whereabouts(error: BaseException) -> str:
    """The type of an error and where it was raised. Leaves out its message, which may quote an address."""
    frames = extract_tb(error.__traceback__)
    line = f" at {frames[-1].name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{line}"


class TokenPipelinesError(Exception):
    """Something that the operator can fix; ``exit_status`` is what the command line returns."""

    exit_status = 1

    def __str__(self) -> str:
        """The sentence. It may name ids, replies and files, which others have chosen."""
        return printable_lines(super().__str__())


class ConfigError(TokenPipelinesError):
    """The configuration or the command is wrong. Cure: change the named key or option."""

    exit_status = 2


class TemplateError(ConfigError):
    """A template is missing, does not parse or names something unknown. Cure: fix the named file."""


class SourceContractError(ConfigError):
    """The source query does not return what the contract asks for. Cure: fix the query, as the message says.

    ``of_a_row`` is as for `SourceError`.
    """

    def __init__(self, message: str, *, of_a_row: bool = False) -> None:
        """Take the message, and whether reading other rows may help."""
        super().__init__(message)
        self.of_a_row = of_a_row


class SourceError(TokenPipelinesError):
    """The source database cannot be read, or a row in it breaks the contract. Nothing is sent.

    ``may_pass``: reading again on a new connection may succeed, for example after a replica's conflict or a lost
    connection. ``unreachable``: no connection could be made. If there was one before, reading again may succeed.
    ``of_a_row``: the database may have failed on one row's value, so that the other rows can be read without it.
    """

    def __init__(
        self, message: str, *, may_pass: bool = False, unreachable: bool = False, of_a_row: bool = False
    ) -> None:
        """Take the message, whether reading again may help, and whether reading other rows may."""
        super().__init__(message)
        self.of_a_row = of_a_row
        self.may_pass = may_pass
        self.unreachable = unreachable


class LedgerError(TokenPipelinesError):
    """The ledger cannot be reached or written. Nothing is sent without it."""


class RelayError(TokenPipelinesError):
    """The mail relay takes no message at all: it is unreachable, refuses the login, or refuses by policy.

    Unsent notices wait in the ledger. Cure: run the tier again once the relay works. ``may_pass``: trying again on a
    new connection after a pause may succeed: true after a lost connection or a 421, false after a refused login.
    """

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        """Take the message, and whether trying again may help."""
        super().__init__(message)
        self.may_pass = may_pass


class FuseTripped(TokenPipelinesError):  # noqa: N818 -- a fuse that trips works as intended
    """More notices are new than the limits allow; nothing was planned. Cure: look, then approve."""


class DemoError(TokenPipelinesError):
    """The sample registry or the local inbox cannot be started."""
