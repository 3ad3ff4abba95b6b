-- GitLab 17, db/structure.sql: the two tables that the preset reads, with their secrets, and the indexes that matter.
CREATE TABLE users (
    id bigserial PRIMARY KEY,
    email character varying DEFAULT ''::character varying NOT NULL,
    encrypted_password character varying DEFAULT ''::character varying NOT NULL,
    reset_password_token character varying,
    created_at timestamp without time zone,
    updated_at timestamp without time zone,
    name character varying DEFAULT ''::character varying NOT NULL,
    username character varying,
    state character varying,
    confirmation_token character varying,
    confirmed_at timestamp without time zone,
    notification_email character varying,
    incoming_email_token character varying,
    feed_token character varying,
    static_object_token character varying(255),
    preferred_language character varying,
    user_type smallint DEFAULT 0
);
CREATE TABLE personal_access_tokens (
    id bigserial PRIMARY KEY,
    user_id bigint NOT NULL,
    name character varying NOT NULL,
    revoked boolean DEFAULT false,
    expires_at date,
    created_at timestamp without time zone NOT NULL,
    updated_at timestamp without time zone NOT NULL,
    scopes character varying DEFAULT '--- []
'::character varying NOT NULL,
    impersonation boolean DEFAULT false NOT NULL,
    token_digest character varying,
    last_used_at timestamp with time zone,
    after_expiry_notification_delivered boolean DEFAULT false NOT NULL,
    previous_personal_access_token_id bigint,
    advanced_scopes text,
    organization_id bigint DEFAULT 1 NOT NULL,
    seven_days_notification_sent_at timestamp with time zone,
    thirty_days_notification_sent_at timestamp with time zone,
    sixty_days_notification_sent_at timestamp with time zone,
    description text
);
CREATE INDEX idx_personal_access_tokens_on_previous_personal_access_token_id
    ON personal_access_tokens USING btree (previous_personal_access_token_id);
CREATE INDEX index_personal_access_tokens_on_user_id ON personal_access_tokens USING btree (user_id);
