"""The statement that marks a token as told, and what it has marked."""

from datetime import datetime, timedelta

from support.pipeline import DAY, NOW, Day, Registry

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
MARK = "UPDATE api_tokens SET expiry_notification_at = :sent_at WHERE id IN :token_ids"


def marks(registry: Registry) -> dict[str, datetime | None]:
    rows = registry.execute("SELECT id, expiry_notification_at FROM api_tokens")
    return {str(token_id): at for token_id, at in rows}


def not_written_back(day: Day) -> dict[str, int | None]:
    return {tier: report.not_written_back for tier, report in day.tiers.items()}


def two_people(registry: Registry) -> tuple[str, str, str]:
    """Ada has two tokens that are due tomorrow, Bob one in a week."""
    ada = registry.user("ada", email="ada@example.org")
    bob = registry.user("bob", email="bob@example.org")
    return (
        registry.token(ada, expires_at=NOW + 12 * HOUR),
        registry.token(ada, expires_at=NOW + 13 * HOUR),
        registry.token(bob, expires_at=NOW + 7 * DAY),
    )
