-- Mastodon 4, db/schema.rb: Doorkeeper's tables and the users, with their secrets, and the indexes that matter.
CREATE TABLE users (
    id bigserial PRIMARY KEY,
    email character varying DEFAULT ''::character varying NOT NULL,
    created_at timestamp without time zone NOT NULL,
    updated_at timestamp without time zone NOT NULL,
    encrypted_password character varying DEFAULT ''::character varying NOT NULL,
    reset_password_token character varying,
    confirmation_token character varying,
    confirmed_at timestamp without time zone,
    locale character varying,
    otp_secret character varying,
    account_id bigint NOT NULL,
    disabled boolean DEFAULT false NOT NULL,
    approved boolean DEFAULT true NOT NULL,
    time_zone character varying
);
CREATE TABLE oauth_applications (
    id bigserial PRIMARY KEY,
    name character varying NOT NULL,
    uid character varying NOT NULL,
    secret character varying NOT NULL,
    redirect_uri text NOT NULL,
    scopes character varying DEFAULT ''::character varying NOT NULL,
    created_at timestamp without time zone,
    updated_at timestamp without time zone,
    superapp boolean DEFAULT false NOT NULL,
    confidential boolean DEFAULT true NOT NULL
);
CREATE TABLE oauth_access_tokens (
    id bigserial PRIMARY KEY,
    token character varying NOT NULL UNIQUE,
    refresh_token character varying,
    expires_in integer,
    revoked_at timestamp without time zone,
    created_at timestamp without time zone NOT NULL,
    scopes character varying,
    application_id bigint,
    resource_owner_id bigint,
    last_used_at timestamp without time zone,
    last_used_ip inet
);
CREATE INDEX index_oauth_access_tokens_on_resource_owner_id
    ON oauth_access_tokens USING btree (resource_owner_id) WHERE (resource_owner_id IS NOT NULL);
