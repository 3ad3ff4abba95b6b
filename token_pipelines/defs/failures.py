"""Turns errors into Dagster failures: the UI shows one sentence, and no chain of causes that may quote values."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import dagster as dg

from token_pipelines.errors import TokenPipelinesError, whereabouts

ERROR_KEY: Final = "error"
EXIT_STATUS_KEY: Final = "exit_status"


def failure(error: TokenPipelinesError) -> dg.Failure:
    """The failure to raise in an op for one of our errors."""
    return _failure(str(error), error, error.exit_status)


def fault(error: Exception) -> dg.Failure:
    """The failure to raise in an op for an error that nobody expected. Its words may hold an address: they are dropped.

    Its traceback is dropped too: Dagster would store the words with it.
    """
    what = f"This step was stopped by a fault of ours ({whereabouts(error)}); please report it."
    return _failure(what, error, TokenPipelinesError.exit_status)


def _failure(sentence: str, error: Exception, exit_status: int) -> dg.Failure:
    metadata: dict[str, str | int] = {ERROR_KEY: type(error).__name__, EXIT_STATUS_KEY: exit_status}
    return dg.Failure(sentence, metadata=metadata, allow_retries=True)


@contextmanager
def failing_clearly() -> Iterator[None]:
    """Within this block, every error fails the op with one sentence; Dagster's own errors stay what they are."""
    try:
        yield
    except TokenPipelinesError as error:
        raise failure(error) from None
    except (dg.Failure, dg.DagsterError):
        raise
    except Exception as error:  # noqa: BLE001 -- what nobody expected must not be stored as it is
        raise fault(error) from None
