-- Django: the tokens of django-rest-knox, a model with a user and an expiry, and the users of django.contrib.auth.
-- The model has no id of its own: its primary key is the secret's digest, and token_key is how the secret begins.
-- Neither is selected. A token is named by its user and the microsecond of its birth.
SELECT
    tokens.user_id::text || '-' || (extract(epoch FROM tokens.created AT TIME ZONE 'UTC') * 1000000)::bigint::text
        AS token_id,
    tokens.user_id AS recipient_id,
    tokens.created AS created_at,
    tokens.expiry AS expires_at,
    CAST(NULL AS text) AS token_name,
    coalesce(nullif(trim(users.first_name || ' ' || users.last_name), ''), users.username) AS recipient_name,
    users.email
FROM knox_authtoken AS tokens
JOIN auth_user AS users ON users.id = tokens.user_id
WHERE users.is_active
  AND tokens.expiry >= :expires_after
  AND tokens.expiry < :expires_before
