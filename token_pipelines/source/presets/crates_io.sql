-- crates.io: API tokens with an expiry, their owners, and the owners' one address.
-- A user without a row in emails comes through with a null address; the policy names the reason.
-- The column api_tokens.token, the secret's hash, is not selected.
SELECT
    api_tokens.id AS token_id,
    api_tokens.user_id AS recipient_id,
    api_tokens.created_at,
    api_tokens.expired_at AS expires_at,
    api_tokens.name AS token_name,
    coalesce(users.name, users.gh_login) AS recipient_name,
    emails.email,
    coalesce(emails.verified, false) AS email_verified,
    api_tokens.last_used_at,
    coalesce(api_tokens.endpoint_scopes, '{}') || coalesce(api_tokens.crate_scopes, '{}') AS scopes,
    api_tokens.expiry_notification_at AS last_notified_at,
    coalesce(api_tokens.revoked, false) AS revoked
FROM api_tokens
JOIN users ON users.id = api_tokens.user_id
LEFT JOIN emails ON emails.user_id = api_tokens.user_id
WHERE api_tokens.expired_at >= :expires_after
  AND api_tokens.expired_at < :expires_before
