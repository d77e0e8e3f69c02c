-- Accounts, sign-ins and what protects them. Times are Unix milliseconds.

CREATE TABLE identity_accounts (
    id TEXT PRIMARY KEY,
    -- As it is shown, as it is looked up, and what names that look alike have in common.
    name TEXT,
    name_folded TEXT UNIQUE,
    name_key TEXT UNIQUE,
    -- Sealed under the key named beside it; found by a keyed hash.
    email BLOB,
    email_key TEXT,
    email_index BLOB UNIQUE,
    email_verified_at INTEGER,
    password TEXT NOT NULL,
    role TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    CHECK (name IS NOT NULL OR email IS NOT NULL)
);
CREATE INDEX identity_accounts_email_key ON identity_accounts (email_key);

CREATE TABLE identity_sessions (
    id TEXT PRIMARY KEY,
    account TEXT NOT NULL REFERENCES identity_accounts (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    used_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER,
    ip TEXT NOT NULL,
    agent TEXT NOT NULL
);
CREATE INDEX identity_sessions_account ON identity_sessions (account, created_at);
CREATE INDEX identity_sessions_expires_at ON identity_sessions (expires_at);

-- Used ones stay until they expire: that is how one that comes again is known.
CREATE TABLE identity_refresh_tokens (
    hash BLOB PRIMARY KEY,
    session TEXT NOT NULL REFERENCES identity_sessions (id) ON DELETE CASCADE,
    expires_at INTEGER NOT NULL,
    used_at INTEGER
);
CREATE INDEX identity_refresh_tokens_session ON identity_refresh_tokens (session);
CREATE INDEX identity_refresh_tokens_expires_at ON identity_refresh_tokens (expires_at);

CREATE TABLE identity_attempts (
    key TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,
    last_at INTEGER NOT NULL
);
CREATE INDEX identity_attempts_last_at ON identity_attempts (last_at);

-- What a mail carries: good once, for one purpose.
CREATE TABLE identity_tickets (
    hash BLOB PRIMARY KEY,
    account TEXT NOT NULL REFERENCES identity_accounts (id) ON DELETE CASCADE,
    purpose TEXT NOT NULL,
    expires_at INTEGER NOT NULL
);
CREATE INDEX identity_tickets_account ON identity_tickets (account, purpose);
CREATE INDEX identity_tickets_expires_at ON identity_tickets (expires_at);

-- A generation is taken once, so two processes that rotate at once make one key.
CREATE TABLE identity_signing_keys (
    generation INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    algorithm TEXT NOT NULL,
    sealed BLOB NOT NULL,
    sealed_key TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    signs_from INTEGER NOT NULL
);

CREATE TABLE identity_audit (
    id TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    account TEXT,
    session TEXT,
    ip TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE INDEX identity_audit_account ON identity_audit (account, at);

CREATE TRIGGER identity_audit_stays_as_written BEFORE UPDATE ON identity_audit BEGIN
    SELECT RAISE(ABORT, 'identity_audit only grows');
END;
CREATE TRIGGER identity_audit_stays BEFORE DELETE ON identity_audit BEGIN
    SELECT RAISE(ABORT, 'identity_audit only grows');
END;
