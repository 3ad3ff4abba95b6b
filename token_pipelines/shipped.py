"""Finds the files that come with the package: two for Dagster, the sample config and the templates.

In a wheel they are inside the package; in a checkout they are at its root.
"""

from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parent

CONFIG: Final = "token_pipelines.yaml"
"""The sample config; an operator's own has the same name by default."""


def path(name: str, package: Path = PACKAGE) -> Path:
    """The shipped file or folder of that name.

    Raises:
        FileNotFoundError: if this installation lacks it.
    """
    in_wheel = package / "shipped_files"
    found = (in_wheel if in_wheel.is_dir() else package.parent) / name
    if not found.exists():
        msg = f"{name} did not come with this installation of token_pipelines; install it again."
        raise FileNotFoundError(msg)
    return found
