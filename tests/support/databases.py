"""A database of each kind that a source may be, to fill and to read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, NullPool, create_engine

from token_pipelines.config import Origin
from token_pipelines.config import Source as SourceConfig
from token_pipelines.source.source import Source


@dataclass
class Database:
    """A database to fill, and the source that reads it."""

    url: URL
    folder: Path

    def execute(self, *statements: str) -> None:
        """Run statements as they are."""
        engine = create_engine(self.url, poolclass=NullPool)
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

    def source(self, query: str, **settings: object) -> Source:
        """The source with this query."""
        (self.folder / "tokens.sql").write_text(query, encoding="utf-8")
        url = self.url.render_as_string(hide_password=False)
        config: dict[str, Any] = {"url": url, "query": "tokens.sql"} | settings
        return Source(
            SourceConfig.model_validate(config, context=Origin(self.folder / "token_pipelines.yaml")), pauses=()
        )


OpenDatabase = Callable[[str], Database]
