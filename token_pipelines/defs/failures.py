"""Turns our errors into Dagster failures: the UI shows one sentence, and no chain of causes that may quote values."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import dagster as dg

from token_pipelines.errors import TokenPipelinesError

ERROR_KEY: Final = "error"
EXIT_STATUS_KEY: Final = "exit_status"


def failure(error: TokenPipelinesError) -> dg.Failure:
    """The failure to raise in an op for one of our errors."""
    metadata: dict[str, str | int] = {ERROR_KEY: type(error).__name__, EXIT_STATUS_KEY: error.exit_status}
    return dg.Failure(str(error), metadata=metadata, allow_retries=True)


@contextmanager
def failing_clearly() -> Iterator[None]:
    """Within this block, an error of ours fails the op with its sentence."""
    try:
        yield
    except TokenPipelinesError as error:
        raise failure(error) from None
