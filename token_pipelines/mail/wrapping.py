"""Lines of the text part. Links and long words stay whole: broken, they lead nowhere."""

from functools import lru_cache
from typing import Final

TEXT_WIDTH: Final = 72


def paragraph(text: str) -> str:
    """One paragraph, wrapped."""
    return wrapped(text, TEXT_WIDTH) + "\n"


def hanging(text: str, columns: int) -> str:
    """The same, for text that begins at that column: further lines begin there too."""
    return wrapped(text, TEXT_WIDTH - columns, "\n" + " " * columns)


@lru_cache(maxsize=4096)  # in a day's notices the same sentences come again and again
def wrapped(text: str, width: int, break_: str = "\n") -> str:
    """The words on lines of at most ``width`` where that can be; a tenth of what textwrap takes."""
    words = text.split()
    lines, line, length = [], words[:1], len(words[0]) if words else 0
    for word in words[1:]:
        length += 1 + len(word)
        if length > width:
            lines.append(" ".join(line))
            line, length = [word], len(word)
        else:
            line.append(word)
    return break_.join([*lines, " ".join(line)])
