-- Keys of backends: each stands for some of its account's rights, for a time.

CREATE TABLE identity_api_keys (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL REFERENCES identity_accounts (id) ON DELETE CASCADE,
    label TEXT NOT NULL,
    hash BYTEA NOT NULL UNIQUE,
    -- Patterns, as JSON arrays of text.
    publish TEXT NOT NULL,
    subscribe TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_at BIGINT,
    revoked_at BIGINT
);
CREATE INDEX identity_api_keys_account ON identity_api_keys (account, created_at);
CREATE INDEX identity_api_keys_expires_at ON identity_api_keys (expires_at);
