"""The script that a platform engineer would write in an afternoon: no tiers, no ledger, one connection.

It records what it sent in the registry's own column, and commits after each email, so that nobody gets two.
"""

import smtplib
from email.message import EmailMessage

import jinja2
import pandas as pd
import sqlalchemy as sa

DUE = """
SELECT api_tokens.id, api_tokens.name AS token_name, api_tokens.expired_at, api_tokens.created_at,
    api_tokens.last_used_at, api_tokens.endpoint_scopes, users.name AS user_name, emails.email
FROM api_tokens
JOIN users ON users.id = api_tokens.user_id
JOIN emails ON emails.user_id = api_tokens.user_id
WHERE NOT api_tokens.revoked AND emails.verified
  AND api_tokens.expired_at > now() AND api_tokens.expired_at < now() + interval '7 days'
  AND api_tokens.expiry_notification_at IS NULL
ORDER BY api_tokens.id
LIMIT %(limit)s
"""
TEXT = """\
Hello {{ user_name }},

your API token "{{ token_name }}" at Example Registry expires on {{ expired_at }}.
It was created on {{ created_at }} and last used on {{ last_used_at }}.
Its scopes are: {{ endpoint_scopes | join(", ") }}

Create a new one: https://example.org/settings/tokens/new?from={{ id }}
See all of your tokens: https://example.org/settings/tokens
"""
HTML = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Your token expires</title>
<style>
{style}
</style></head><body>
<p>Hello {{{{ user_name }}}},</p>
<p>your API token <b>{{{{ token_name }}}}</b> at Example Registry expires on {{{{ expired_at }}}}.
It was created on {{{{ created_at }}}} and last used on {{{{ last_used_at }}}}.</p>
<p>Its scopes are: {{{{ endpoint_scopes | join(", ") }}}}</p>
<p><a href="https://example.org/settings/tokens/new?from={{{{ id }}}}">Create a new one</a></p>
<p><a href="https://example.org/settings/tokens">See all of your tokens</a></p>
</body></html>
"""
RULE = ".card { margin: 0 0 12px; border-collapse: separate; color: #1f2328; }\n"


def run(url: str, port: int, *, limit: int, html_size: int) -> int:
    """Write to everybody whose token expires within a week, at most ``limit``; returns how many emails were sent.

    ``html_size`` is the approximate length of the HTML part, so that both programs send emails of the same size.
    """
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    environment = jinja2.Environment(autoescape=True)
    style = RULE * max(0, (html_size - len(HTML)) // len(RULE))
    html, text = environment.from_string(HTML.format(style=style)), jinja2.Environment().from_string(TEXT)  # noqa: S701 -- plain text
    due = pd.read_sql(DUE, engine, params={"limit": limit})
    mark = sa.text("UPDATE api_tokens SET expiry_notification_at = now() WHERE id = :id")
    with smtplib.SMTP("127.0.0.1", port) as smtp:
        for row in due.to_dict("records"):
            message = EmailMessage()
            message["From"] = "Example Registry <noreply@example.org>"
            message["To"] = row["email"]
            message["Subject"] = "Your Example Registry API token expires soon"
            message.set_content(text.render(row))
            message.add_alternative(html.render(row), subtype="html")
            smtp.send_message(message)
            with engine.begin() as connection:
                connection.execute(mark, {"id": row["id"]})
    engine.dispose()
    return len(due)
