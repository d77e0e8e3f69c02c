-- Keys of backends: each stands for some of its account's rights, for a time.

CREATE TABLE identity_api_keys (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL REFERENCES identity_accounts (id) ON DELETE CASCADE,
    label TEXT NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    -- Patterns, as JSON arrays of text.
    publish TEXT NOT NULL,
    subscribe TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at INTEGER,
    revoked_at INTEGER
);
CREATE INDEX identity_api_keys_account ON identity_api_keys (account, created_at);
CREATE INDEX identity_api_keys_expires_at ON identity_api_keys (expires_at);
