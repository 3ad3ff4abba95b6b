"""Scopes as a flat list, from an array, a JSON array, or text with blanks or commas.

A token's owner may choose its scopes, so nothing here recurses, and the count and the length of scopes are limited.
"""

import json
import re
from collections.abc import Collection, Iterator
from typing import Final

AT_MOST: Final = 1000
"""Scopes kept of a token; a dozen are shown, and the others counted."""

LONGEST: Final = 256
"""Characters kept of a scope; 80 are shown."""

_JSON: Final = re.compile(r'\s*\[\s*(?:["\[\]{\d-]|true|false|null)')
"""How a JSON array begins. What only begins with a bracket is text."""

_ITEM: Final = re.compile(r'"((?:[^"\\]|\\.)*+)(?:"|\\?$)|([^\s\[\]{},:"]+)', re.DOTALL)
"""A string, which may be cut off at the end of the text; or a number, true, false or null."""


def parse(value: object) -> tuple[str, ...]:
    """The scopes in a value of the column ``scopes``; those of nested arrays are put into the one list."""
    scopes: list[str] = []
    for scope in _found(value):
        if len(scopes) == AT_MOST:
            break
        if scope:
            scopes.append(scope[:LONGEST])
    return tuple(scopes)


def _found(value: object) -> Iterator[str]:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        yield from _of_json(value) if _JSON.match(value) else value.replace(",", " ").split()
    elif isinstance(value, Collection):
        yield from _of_array(value)
    elif value is not None:
        yield str(value)


def _of_json(text: str) -> Iterator[str]:
    for item in _ITEM.finditer(text):
        if item[1] is not None:
            yield _unescaped(item[1])
        elif item[2] != "null":
            yield item[2]


def _unescaped(string: str) -> str:
    if "\\" not in string:
        return string
    try:
        # A lone half of a surrogate pair is no character, and could not be written anywhere.
        return str(json.loads(f'"{string}"', strict=False)).encode("utf-8", "replace").decode()
    except ValueError:
        return string


def _of_array(array: Collection[object]) -> Iterator[str]:
    waiting = [iter(array)]
    while waiting:
        for item in waiting[-1]:
            if isinstance(item, bytes):
                yield item.decode("utf-8", "replace")
            elif isinstance(item, Collection) and not isinstance(item, str):
                waiting.append(iter(item))
                break
            elif item is not None:
                yield str(item)
        else:
            waiting.pop()
