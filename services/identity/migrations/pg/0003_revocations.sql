-- Blocked accounts, and the list of what is good no longer: gateways follow it. Triggers write it, so that
-- whatever ends a session or changes what an account may is in it, in the same transaction.

ALTER TABLE identity_accounts ADD COLUMN blocked_at BIGINT;
-- When role or block changed last: tokens from before say what was true then.
ALTER TABLE identity_accounts ADD COLUMN changed_at BIGINT NOT NULL DEFAULT 0;

CREATE TABLE identity_revocations (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account TEXT NOT NULL,
    -- Of one session, or of all that was signed up to `at`.
    session TEXT,
    at BIGINT NOT NULL
);
CREATE INDEX identity_revocations_at ON identity_revocations (at);

-- The lock is held to the end of the transaction: numbers are committed in their order, so that whoever
-- has read one has read all below it.
CREATE FUNCTION identity_revoke(p_account text, p_session text, p_at bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(823114, 2);
    INSERT INTO identity_revocations (account, session, at) VALUES (p_account, p_session, p_at);
END $$;

CREATE FUNCTION identity_note_end() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM identity_revoke(NEW.account, NEW.id, NEW.revoked_at);
    RETURN NULL;
END $$;
CREATE FUNCTION identity_note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM identity_revoke(NEW.id, NULL, NEW.changed_at);
    RETURN NULL;
END $$;

CREATE TRIGGER identity_session_revoked AFTER UPDATE OF revoked_at ON identity_sessions FOR EACH ROW
WHEN (NEW.revoked_at IS NOT NULL AND OLD.revoked_at IS NULL) EXECUTE FUNCTION identity_note_end();
CREATE TRIGGER identity_api_key_revoked AFTER UPDATE OF revoked_at ON identity_api_keys FOR EACH ROW
WHEN (NEW.revoked_at IS NOT NULL AND OLD.revoked_at IS NULL) EXECUTE FUNCTION identity_note_end();
CREATE TRIGGER identity_account_changed AFTER UPDATE OF changed_at ON identity_accounts FOR EACH ROW
WHEN (NEW.changed_at <> OLD.changed_at) EXECUTE FUNCTION identity_note_change();
