"""The command ``suppress`` and its subcommands: addresses not to write to. Never prints an address."""

import re
import sys
from datetime import datetime
from pathlib import Path
from typing import Final

import click

from token_pipelines.addresses import valid_address
from token_pipelines.cli.opening import opened_ledger
from token_pipelines.cli.options import CONFIG_OPTION, Instant
from token_pipelines.cli.output import print_json, say
from token_pipelines.clock import system_clock
from token_pipelines.errors import ConfigError
from token_pipelines.model import rfc3339
from token_pipelines.text_files import UnreadableFileError, decoded

BY_HAND: Final = "by hand"

_ADDRESSES = click.argument("addresses", nargs=-1)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")


@click.group()
def suppress() -> None:
    """Addresses not to write to, kept as keyed hashes.

    Give addresses as arguments, or one a line on standard input, which keeps them out of the shell's history and of
    the list of processes.
    """


@suppress.command()
@CONFIG_OPTION
@_ADDRESSES
@click.option("--why", default=BY_HAND, show_default=True, help="The reason, which the list shows.")
@_JSON
def add(path: Path, addresses: tuple[str, ...], why: str, *, as_json: bool) -> int:
    """Stop writing to these addresses."""
    if "@" in why or not why.isprintable():
        msg = "--why is kept in clear, so it holds no address and is one line; say why in other words."
        raise ConfigError(msg)
    wanted = _given(addresses)
    with opened_ledger(path) as ledger:
        hashes = {ledger.hash_address.known(address) for address in wanted}
        listed = ledger.suppressions.among([each for known in hashes for each in known])
        fresh = [known[0] for known in hashes if listed.isdisjoint(known)]
        added = ledger.suppressions.add(fresh, at=system_clock(), cause=why)
    if as_json:
        print_json({"added": added, "already": len(hashes) - added})
    else:
        say(f"{added:,} added, {len(hashes) - added:,} suppressed already.")
    return 0


@suppress.command()
@CONFIG_OPTION
@_ADDRESSES
@click.option("--since", type=Instant(), help="Instead of addresses: everything suppressed at this instant or later …")
@click.option("--cause", metavar="CODE", help="… for this cause, as the list shows it: 5.1.2, complaint.")
@_JSON
def remove(path: Path, addresses: tuple[str, ...], since: datetime | None, cause: str | None, *, as_json: bool) -> int:
    """Write to these addresses again.

    With --since and --cause, no addresses are needed, and notices that failed for this cause are due again.
    """
    if since is not None or cause is not None:
        if since is None or cause is None or addresses:
            msg = "--since and --cause go together, and without addresses: what to remove is everything of that cause."
            raise ConfigError(msg)
        return _remove_since(path, since, cause, as_json=as_json)
    wanted = _given(addresses)
    with opened_ledger(path) as ledger:
        hashes = {ledger.hash_address.known(address) for address in wanted}
        listed = ledger.suppressions.among([each for known in hashes for each in known])
        removed = sum(not listed.isdisjoint(known) for known in hashes)
        ledger.suppressions.remove(listed)
    if as_json:
        print_json({"removed": removed, "unknown": len(hashes) - removed})
    else:
        say(f"{removed:,} removed, {len(hashes) - removed:,} not suppressed.")
    return 0


def _remove_since(path: Path, since: datetime, cause: str, *, as_json: bool) -> int:
    with opened_ledger(path) as ledger:
        removed, due_again = ledger.suppressions.remove_since(since, code=cause)
    if as_json:
        print_json({"removed": removed, "due_again": due_again})
    else:
        say(f"{removed:,} removed; {due_again:,} notices that had failed for this are due again.")
    return 0


@suppress.command()
@CONFIG_OPTION
@_ADDRESSES
@_JSON
def check(path: Path, addresses: tuple[str, ...], *, as_json: bool) -> int:
    """Tell whether addresses are suppressed, in the order in which they are given."""
    wanted = _given(addresses)
    with opened_ledger(path) as ledger:
        hashes = [ledger.hash_address.known(address) for address in wanted]
        listed = ledger.suppressions.listed([each for known in hashes for each in known])
        found = {entry.address_hash: entry for entry in listed}
    for number, known in enumerate(hashes, start=1):
        entry = next((found[each] for each in known if each in found), None)
        since, cause, why = (rfc3339(entry.at), entry.code, entry.cause) if entry else (None, None, None)
        if as_json:
            answer = {"number": number, "suppressed": entry is not None, "since": since, "cause": cause, "why": why}
            print_json(answer | {"address_hash": (entry.address_hash if entry else known[0]).hex()})
        else:
            say(f"{number}: suppressed since {since}: {why}" if entry else f"{number}: not suppressed")
    return 0


@suppress.command(name="list")
@CONFIG_OPTION
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line on stdout.")
def list_(path: Path, *, as_json: bool) -> int:
    """List the keyed hashes of suppressed addresses, since when and why."""
    with opened_ledger(path) as ledger:
        for entry in ledger.suppressions.listed():
            since, address_hash = rfc3339(entry.at), entry.address_hash.hex()
            if as_json:
                print_json({"address_hash": address_hash, "since": since, "cause": entry.code, "why": entry.cause})
            else:
                say(f"{address_hash}  {since}  {entry.cause}")
    return 0


def _given(arguments: tuple[str, ...]) -> list[str]:
    """The addresses from the arguments or from standard input, in order.

    Raises:
        ConfigError: if there is none, if one is not an address, or if the input is not in UTF-8. The message gives a
            line's number, never its text.
    """
    if not arguments or arguments == ("-",):
        if sys.stdin.isatty():
            say("One address a line; end with Ctrl-D.", err=True)
        try:
            lines = re.split(r"\r?\n", decoded(sys.stdin.buffer.read()))
        except UnreadableFileError as error:
            msg = f"Standard input {error}; nothing was done."
            raise ConfigError(msg) from None
        numbered = [(f"Line {number}", line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    else:
        numbered = [(f"Argument {number}", argument.strip()) for number, argument in enumerate(arguments, start=1)]
    for position, address in numbered:
        if not valid_address(address):
            msg = f"{position} is not one plain email address; nothing was done."
            raise ConfigError(msg)
    if not numbered:
        msg = "No address was given; name some, or write one a line on standard input."
        raise ConfigError(msg)
    return [address for _, address in numbered]
