"""A mailbox as the config names it: a name and one address. Which addresses are valid is said in ``addresses``."""

import email.policy

from token_pipelines.addresses import wire_address
from token_pipelines.errors import ConfigError


def parse_mailbox(text: str, key: str) -> tuple[str, str]:
    """``Example Registry <noreply@example.org>`` as display name and address; ``key`` names it in the error.

    Raises:
        ConfigError: it is not one name and one valid address in ASCII.
    """
    cure = (
        f'{key} must be one address, like "Example Registry <noreply@example.org>"; put a name with a comma in quotes.'
    )
    try:
        header = email.policy.default.header_factory("From", text)
        (found,) = header.addresses
        address = wire_address(f"{found.username}@{found.domain}")
    except Exception:  # noqa: BLE001 -- the parser stumbles with TypeError, UnboundLocalError, RecursionError too
        raise ConfigError(cure) from None
    is_group = header.groups[0].display_name is not None
    if header.defects or is_group or not address.isascii():
        raise ConfigError(cure)
    return found.display_name, address
