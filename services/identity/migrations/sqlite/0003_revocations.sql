-- Blocked accounts, and the list of what is good no longer: gateways follow it. Triggers write it, so that
-- whatever ends a session or changes what an account may is in it, in the same transaction.

ALTER TABLE identity_accounts ADD COLUMN blocked_at INTEGER;
-- When role or block changed last: tokens from before say what was true then.
ALTER TABLE identity_accounts ADD COLUMN changed_at INTEGER NOT NULL DEFAULT 0;

CREATE TABLE identity_revocations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    account TEXT NOT NULL,
    -- Of one session, or of all that was signed up to `at`.
    session TEXT,
    at INTEGER NOT NULL
);
CREATE INDEX identity_revocations_at ON identity_revocations (at);

CREATE TRIGGER identity_session_revoked AFTER UPDATE OF revoked_at ON identity_sessions
WHEN NEW.revoked_at IS NOT NULL AND OLD.revoked_at IS NULL BEGIN
    INSERT INTO identity_revocations (account, session, at) VALUES (NEW.account, NEW.id, NEW.revoked_at);
END;
CREATE TRIGGER identity_api_key_revoked AFTER UPDATE OF revoked_at ON identity_api_keys
WHEN NEW.revoked_at IS NOT NULL AND OLD.revoked_at IS NULL BEGIN
    INSERT INTO identity_revocations (account, session, at) VALUES (NEW.account, NEW.id, NEW.revoked_at);
END;
CREATE TRIGGER identity_account_changed AFTER UPDATE OF changed_at ON identity_accounts
WHEN NEW.changed_at <> OLD.changed_at BEGIN
    INSERT INTO identity_revocations (account, session, at) VALUES (NEW.id, NULL, NEW.changed_at);
END;
