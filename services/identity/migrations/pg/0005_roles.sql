-- Gives a role for the identity service, where deploy/postgres/roles.sql has made one, what it needs of the
-- tables of this version. A migration that makes some replaces this and calls it.
CREATE FUNCTION identity_give_rights() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF to_regrole('stormwire_identity') IS NULL THEN
        RETURN;
    END IF;
    GRANT SELECT ON identity_migrations TO stormwire_identity;
    GRANT SELECT, INSERT, UPDATE ON identity_accounts TO stormwire_identity;
    GRANT SELECT, INSERT, UPDATE, DELETE ON identity_sessions, identity_refresh_tokens, identity_attempts,
        identity_signing_keys, identity_api_keys TO stormwire_identity;
    GRANT SELECT, INSERT, DELETE ON identity_tickets, identity_revocations, identity_links, identity_proofs
        TO stormwire_identity;
    GRANT INSERT ON identity_audit TO stormwire_identity;
END $$;
REVOKE EXECUTE ON FUNCTION identity_give_rights FROM PUBLIC;
SELECT identity_give_rights();
