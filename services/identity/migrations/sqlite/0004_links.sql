-- Identities of other providers that stand for an account, and proofs of one that wait to be taken.

CREATE TABLE identity_links (
    id TEXT PRIMARY KEY,
    -- Who vouches, and by which name it knows its user. Never the provider's name here, which may change.
    authority TEXT NOT NULL,
    subject TEXT NOT NULL,
    account TEXT NOT NULL REFERENCES identity_accounts (id) ON DELETE CASCADE,
    provider TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    UNIQUE (authority, subject)
);
CREATE INDEX identity_links_account ON identity_links (account, created_at);

CREATE TABLE identity_proofs (
    hash BLOB PRIMARY KEY,
    sealed BLOB NOT NULL,
    sealed_key TEXT NOT NULL,
    expires_at INTEGER NOT NULL
);
CREATE INDEX identity_proofs_expires_at ON identity_proofs (expires_at);
