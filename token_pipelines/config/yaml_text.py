"""Reads YAML so that every mistake in it can be named by key and line.

PyYAML's own constructors decide the types of values, and fail on some: a date that does not exist, ``0x_``. Here a
plain value is null, true or false, a decimal number, or text: ``10:30`` is a time of day and ``0123`` an id. A key
that comes twice in a table is refused, where YAML would silently keep the later one.
"""

import re
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import yaml

KeyPath = tuple[int | str, ...]
"""Keys and positions that lead to a value: ``("tiers", 0, "before")``."""

_TOO_DEEP: Final = "it is nested too deeply; write it in fewer levels"


class YamlError(ValueError):
    """What is wrong, with the cure, for a sentence after the file's name. Without its full stop."""


@dataclass(frozen=True)
class YamlText:
    """What a YAML text holds, and at which line, from 1 on, each of its keys is."""

    values: Any
    lines: dict[KeyPath, int]


class _Loader(yaml.SafeLoader):
    """The safe loader, without implicit types but those named above."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 -- as PyYAML declares it


_PLAIN: Final = {
    "tag:yaml.org,2002:null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "tag:yaml.org,2002:bool": (r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    "tag:yaml.org,2002:int": (r"-?(0|[1-9][0-9]{0,300})", [*"-0123456789"]),  # longer ones Python refuses to convert
    "tag:yaml.org,2002:float": (r"-?[0-9]{1,300}\.[0-9]{1,300}|-?\.(inf|nan)", [*"-.0123456789"]),
    "tag:yaml.org,2002:merge": (r"<<", ["<"]),
}
for _tag, (_pattern, _first) in _PLAIN.items():
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)


def read_yaml(text: str) -> YamlText:
    """The values of a YAML text.

    Raises:
        YamlError: if it is no YAML, or a key comes twice.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return YamlText(None, {})
        lines: dict[KeyPath, int] = {}
        _walk(node, (), lines, frozenset(), set())
        return YamlText(loader.construct_document(node), lines)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        msg = f"is not valid YAML{where}; check the indentation, the quotes and the tags there"
        raise YamlError(msg) from None
    except RecursionError:
        msg = f"cannot be read: {_TOO_DEEP}"
        raise YamlError(msg) from None
    except ValueError as error:  # of a value with a tag of its own, like !!timestamp
        if isinstance(error, YamlError):
            raise
        msg = "holds a value that its tag (!!) does not allow; remove the tag"
        raise YamlError(msg) from None


def _walk(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], above: frozenset[int], walked: set[int]) -> None:
    """Note the line of each key, and refuse one that comes twice. A node with several aliases is walked once."""
    if id(node) in above:
        msg = f"refers to a table from within it, at line {node.start_mark.line + 1}; write its keys out"
        raise YamlError(msg)
    if id(node) in walked:
        return
    walked.add(id(node))
    above |= {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            lines[*path, position] = item.start_mark.line + 1
            _walk(item, (*path, position), lines, above, walked)
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # a table or a list as a key, which the loader refuses
            line = key.start_mark.line + 1
            if key.value in first:
                _refuse_second((*path, key.value), first[key.value], line)
            first[key.value] = lines[*path, key.value] = line
            _walk(value, (*path, key.value), lines, above, walked)


def _refuse_second(path: KeyPath, first: int, second: int) -> NoReturn:
    where = f"at line {first}" if first == second else f"at lines {first} and {second}"
    shown = ".".join(str(part + 1) if isinstance(part, int) else part for part in path)  # counted from one
    msg = f"holds the key {shown} twice, {where}; keep one"
    raise YamlError(msg)
