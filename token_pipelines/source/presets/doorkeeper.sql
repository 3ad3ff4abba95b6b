-- Doorkeeper, as Mastodon and many other Rails applications use it: what a person allowed an application to do for them.
-- Left out: tokens that live for a day or less, which programs refresh unseen, and tokens that belong to no person.
-- The columns token, refresh_token and previous_refresh_token, secrets all, are not selected.
SELECT
    tokens.id AS token_id,
    tokens.resource_owner_id AS recipient_id,
    tokens.created_at AT TIME ZONE 'UTC' AS created_at,
    (tokens.created_at + tokens.expires_in * interval '1 second') AT TIME ZONE 'UTC' AS expires_at,
    oauth_applications.name AS token_name,
    CAST(NULL AS text) AS recipient_name,
    owners.email,
    owners.confirmed_at IS NOT NULL AS email_verified,
    owners.locale,
    owners.time_zone AS timezone,
    tokens.scopes,
    tokens.revoked_at IS NOT NULL AS revoked,
    -- A younger token of the same application and person that lives, outlives this one and can do as much.
    (
        SELECT min(newer.created_at) AT TIME ZONE 'UTC'
        FROM oauth_access_tokens AS newer
        WHERE newer.resource_owner_id = tokens.resource_owner_id
          AND newer.application_id = tokens.application_id
          AND newer.created_at > tokens.created_at
          AND newer.revoked_at IS NULL
          AND coalesce(newer.created_at + newer.expires_in * interval '1 second', 'infinity')
              > greatest(tokens.created_at + tokens.expires_in * interval '1 second', now() AT TIME ZONE 'UTC')
          AND string_to_array(coalesce(newer.scopes, ''), ' ') @> string_to_array(coalesce(tokens.scopes, ''), ' ')
    ) AS replaced_at
FROM oauth_access_tokens AS tokens
-- What a column is worth where the application's users do not have it: the name then means this one.
CROSS JOIN (
    SELECT
        timestamp 'epoch' AS confirmed_at,
        CAST(NULL AS text) AS locale,
        CAST(NULL AS text) AS time_zone,
        false AS disabled
) AS otherwise
CROSS JOIN LATERAL (
    SELECT users.email, confirmed_at, locale, time_zone, disabled
    FROM users
    WHERE users.id = tokens.resource_owner_id
) AS owners
LEFT JOIN oauth_applications ON oauth_applications.id = tokens.application_id
WHERE owners.disabled IS NOT TRUE
  AND tokens.expires_in > 86400
  AND tokens.created_at + tokens.expires_in * interval '1 second' >= CAST(:expires_after AS timestamptz) AT TIME ZONE 'UTC'
  AND tokens.created_at + tokens.expires_in * interval '1 second' < CAST(:expires_before AS timestamptz) AT TIME ZONE 'UTC'
