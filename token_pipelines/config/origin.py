"""Where a config was read, and how its paths become absolute: once, while it is checked."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import unquote

from pydantic import AfterValidator, SecretStr, ValidationInfo

SQL_FILE: Final = ".sql"
"""How the path of a file with SQL ends, where a key also takes SQL itself or a preset's name."""

_SQLITE_FILE: Final = re.compile(r"(sqlite(?:\+\w+)?://)(?:/(file:)?([^?]*))?(?=\?|\Z)")

_ESCAPES: Final = str.maketrans({"%": "%25", "?": "%3F"})
"""What has a meaning in the path of a URL, and may be part of a folder's name."""


@dataclass(frozen=True)
class Origin:
    """The file that a config was read from, and the name of its pipeline where the file holds several.

    Given to pydantic as the context of validation: relative paths in the config are relative to the file's folder.
    Without one they are relative to the current folder.
    """

    path: Path
    pipeline: str | None = None
    names: tuple[str, ...] = ()
    """The names of all pipelines in the file; empty where it holds a single one."""

    @property
    def folder(self) -> Path:
        """The file's folder, absolute."""
        return self.path.absolute().parent


def _absolute(path: Path, info: ValidationInfo) -> Path:
    folder = info.context.folder if isinstance(info.context, Origin) else Path()
    return (folder / path).absolute()


def _absolute_sql_file(value: str, info: ValidationInfo) -> str:
    return str(_absolute(Path(value), info)) if value.endswith(SQL_FILE) else value


def _absolute_sqlite_file(url: SecretStr, info: ValidationInfo) -> SecretStr:
    match = _SQLITE_FILE.match(url.get_secret_value())
    if match is None:
        return url
    start, scheme, file = match.groups(default="")
    path = str(_absolute(Path(unquote(file)), info)).translate(_ESCAPES)
    return SecretStr(f"{start}/{scheme}{path}{match.string[match.end() :]}")


AbsolutePath = Annotated[Path, AfterValidator(_absolute)]

SqlOrName = Annotated[str, AfterValidator(_absolute_sql_file)]
"""The path of a .sql file, made absolute; or something else, SQL or a preset's name, as it is."""

SecretUrl = Annotated[SecretStr, AfterValidator(_absolute_sqlite_file)]
"""A database's URL. The file of a SQLite database is made absolute."""
