"""Text that others have chosen, made safe to show: ids, names, replies, names of files.

A terminal obeys control characters: it can be made to change its title, to write elsewhere, to make a link. Characters
that turn the direction of writing let a text look like another one.
"""


def printable(text: object) -> str:
    r"""On one line, with everything that cannot be seen as Python writes it: ``\x1b``, ``\n``, ``\u202e``."""
    shown = str(text)
    return shown if shown.isprintable() else "".join(map(_escaped, shown))


def printable_lines(text: object) -> str:
    """The same for a text of ours that has several lines."""
    return "\n".join(map(printable, str(text).split("\n")))


def _escaped(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]
