-- GitLab: personal access tokens of people who can still sign in, and the address that they chose for notifications.
-- Left out: impersonation tokens, which an administrator made, and tokens of bots, service accounts and blocked users.
-- The column token_digest, the secret's hash, is not selected.
SELECT
    tokens.id AS token_id,
    tokens.user_id AS recipient_id,
    tokens.created_at AT TIME ZONE 'UTC' AS created_at,
    -- A date: the token dies as that day begins, in UTC.
    tokens.expires_at::timestamp AT TIME ZONE 'UTC' AS expires_at,
    tokens.name AS token_name,
    users.name AS recipient_name,
    coalesce(nullif(trim(users.notification_email), ''), users.email) AS email,
    users.confirmed_at IS NOT NULL AS email_verified,
    users.preferred_language AS locale,
    tokens.last_used_at,
    -- YAML: one scope a line after a dash, before which older versions also put a colon; or [] for none.
    ARRAY(
        SELECT scope[1]
        FROM regexp_matches(tokens.scopes, '^ *- +[:"'']*([^\s:"'']+)', 'gn') AS scope
    ) AS scopes,
    coalesce(tokens.revoked, false) AS revoked,
    -- A rotated token is named by the one that took its place.
    min(newer.created_at) AT TIME ZONE 'UTC' AS replaced_at,
    greatest(
        tokens.seven_days_notification_sent_at,
        tokens.thirty_days_notification_sent_at,
        tokens.sixty_days_notification_sent_at
    ) AS last_notified_at
FROM personal_access_tokens AS tokens
JOIN users ON users.id = tokens.user_id
LEFT JOIN personal_access_tokens AS newer ON newer.previous_personal_access_token_id = tokens.id
WHERE tokens.impersonation IS NOT TRUE
  AND users.state = 'active'
  AND coalesce(users.user_type, 0) = 0
  -- The instants become timestamps, not the column: a date compares with a timestamp as its midnight, and by an index.
  AND tokens.expires_at >= CAST(:expires_after AS timestamptz) AT TIME ZONE 'UTC'
  AND tokens.expires_at < CAST(:expires_before AS timestamptz) AT TIME ZONE 'UTC'
GROUP BY tokens.id, users.id
