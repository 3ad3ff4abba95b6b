"""A day at the relay: who is in the registry, how the relay answers, what it was given."""

from datetime import timedelta

from support.pipeline import DAY, NOW, Registry
from support.smtpd import Accepted, Action, Script, Smtpd

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
IN_TWO_DAYS = NOW + 2 * DAY
HOSTILE = "<script>alert('hi')</script>"


def recipients(relay: Smtpd) -> list[str]:
    return sorted(accepted.recipient for accepted in relay.accepted)


def text(accepted: Accepted) -> str:
    body = accepted.message.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def html(accepted: Accepted) -> str:
    body = accepted.message.get_body(("html",))
    assert body is not None
    return str(body.get_content())


def at_stage(stage: str, action: Action, *, of: str = "") -> Script:
    """A script that acts each time at a stage, for addresses that hold ``of``."""
    return lambda reached, argument: action if reached == stage and of in argument else None


def people(registry: Registry, count: int, *, address: str = "person{}@example.org") -> list[str]:
    """So many people, each with a token that expires in two days; their ids, in the order in which they were added."""
    found = []
    for number in range(count):
        user = registry.user(f"person{number}", email=address.format(number))
        registry.token(user, expires_at=IN_TWO_DAYS)
        found.append(str(user))
    return found


def somebody_elsewhere(registry: Registry) -> str:
    """A person at another domain. Once they are accepted, a refusal at example.org is believed."""
    return people(registry, 1, address="person{}@example.net")[0]


def three_people(registry: Registry) -> dict[str, int]:
    people = {name: registry.user(name, email=f"{name}@example.org") for name in ("ada", "bob", "eve")}
    for user in people.values():
        registry.token(user, expires_at=IN_TWO_DAYS)
    return people
