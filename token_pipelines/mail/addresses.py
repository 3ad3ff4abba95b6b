"""Parses a mailbox in the config: a display name and one address. ``addresses`` says which addresses are valid."""

import email.policy

from token_pipelines.addresses import wire_address
from token_pipelines.errors import ConfigError


def parse_mailbox(text: str, key: str) -> tuple[str, str]:
    """Split ``Example Registry <noreply@example.org>`` into display name and address; ``key`` names it in the error.

    Raises:
        ConfigError: it is not an optional name with one valid ASCII address.
    """
    cure = (
        f'{key} must be one address, like "Example Registry <noreply@example.org>"; put a name with a comma in quotes.'
    )
    try:
        header = email.policy.default.header_factory("From", text)
        (found,) = header.addresses
        address = wire_address(f"{found.username}@{found.domain}")
    except Exception:  # noqa: BLE001 -- the parser also raises TypeError, UnboundLocalError, RecursionError
        raise ConfigError(cure) from None
    is_group = header.groups[0].display_name is not None
    if header.defects or is_group or not address.isascii():
        raise ConfigError(cure)
    return found.display_name, address
