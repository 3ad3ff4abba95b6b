"""How every command prints JSON: alone on stdout, one object a line, with the version of its form."""

import json
from collections.abc import Mapping
from typing import Final

import click

JSON_VERSION: Final = 1
"""Increased when a key changes its meaning or is removed; a new key does not increase it."""


def print_json(values: Mapping[str, object]) -> None:
    """Print one object on a line of stdout."""
    click.echo(json.dumps({"version": JSON_VERSION, **values}))
