-- crates.io: API tokens with an expiry, their owners, and the owners' one address.
-- A user without a row in emails comes through with a null address; the policy names the reason.
-- The column api_tokens.token, the secret's hash, is not selected.
SELECT
    tokens.id AS token_id,
    tokens.user_id AS recipient_id,
    tokens.created_at,
    tokens.expired_at AS expires_at,
    tokens.name AS token_name,
    coalesce(users.name, users.gh_login) AS recipient_name,
    emails.email,
    coalesce(emails.verified, false) AS email_verified,
    tokens.last_used_at,
    coalesce(tokens.endpoint_scopes, '{}') || coalesce(tokens.crate_scopes, '{}') AS scopes,
    tokens.expiry_notification_at AS last_notified_at,
    coalesce(tokens.revoked, false) AS revoked,
    min(newer.created_at) AS replaced_at
FROM api_tokens AS tokens
JOIN users ON users.id = tokens.user_id
LEFT JOIN emails ON emails.user_id = tokens.user_id
-- What replaces a token: a younger one of the same user that lives, outlives it and can do as much. A join rather than
-- a sub-select for each row, so that Postgres can read the table once where no index on user_id helps.
LEFT JOIN api_tokens AS newer
    ON newer.user_id = tokens.user_id
    AND newer.created_at > tokens.created_at
    AND newer.revoked IS NOT TRUE
    AND coalesce(newer.expired_at, 'infinity') > now()
    AND coalesce(newer.expired_at, 'infinity') > tokens.expired_at
    AND starts_with(newer.name, tokens.name)
    AND substr(newer.name, length(tokens.name) + 1) ~* '^( copy| [(](copy|renewed|[2-9])[)])?$'
    -- No endpoint scopes: a token of old, which may do everything. No crate scopes: every crate.
    AND (newer.endpoint_scopes IS NULL OR newer.endpoint_scopes @> tokens.endpoint_scopes)
    AND (
        coalesce(newer.crate_scopes, '{}') = '{}'
        OR (tokens.crate_scopes <> '{}' AND newer.crate_scopes @> tokens.crate_scopes)
    )
WHERE tokens.expired_at >= :expires_after
  AND tokens.expired_at < :expires_before
GROUP BY tokens.id, users.id, emails.email, emails.verified
