"""Lines of the text part. Links and long words stay whole: a broken link leads nowhere."""

import textwrap
from functools import lru_cache
from typing import Final

TEXT_WIDTH: Final = 72


def paragraph(text: str) -> str:
    """One paragraph, wrapped, with a line break at its end."""
    return hanging(text, 0) + "\n"


@lru_cache(maxsize=4096)  # textwrap takes 25 µs for three lines, and a day's notices repeat the same sentences
def hanging(text: str, columns: int) -> str:
    """Text that begins at column ``columns``, wrapped; its further lines are indented to there."""
    line = " ".join(text.split())
    if len(line) <= TEXT_WIDTH - columns:
        return line
    indent = " " * columns
    wrapped = textwrap.fill(
        line,
        TEXT_WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return wrapped[columns:]
