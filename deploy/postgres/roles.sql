-- Roles of Stormwire's database: each process may do what it does and no more. docs/database-roles.md says who
-- is who. Run it by psql, in Stormwire's database, as a superuser, or as the database's owner with CREATEROLE:
--   psql "$ADMIN_URL" -v owner_password=… -v gateway_password=… -v messages_password=… \
--        -v identity_password=… -v backup_password=… -f deploy/postgres/roles.sql
-- It may run before the first `stormwire migrate` or after any, and again: it does all of it or nothing, and
-- what is as it should be stays. A password that is left out stays what it is; who never had one cannot sign
-- in. Takes a lock on a table only to hand it over to its new owner.

\set ON_ERROR_STOP on
\set QUIET on
BEGIN;
SET LOCAL search_path = public;
SET LOCAL client_min_messages = warning;
-- Whoever cannot hand a table over at once gives up: run it again when less goes on.
SET LOCAL lock_timeout = '5s';

-- Rights belong to groups, which nobody signs in as. Each has two members that sign in, so that a password can
-- be replaced while the other one is in use (deploy/rotate-database-password.sh). What an owner makes belongs
-- to its group, whichever of the two made it.
DO $$
DECLARE
    purpose text;
    login   text;
BEGIN
    FOREACH purpose IN ARRAY ARRAY['owner', 'gateway', 'messages', 'identity', 'backup'] LOOP
        IF to_regrole('stormwire_' || purpose) IS NULL THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', 'stormwire_' || purpose);
        END IF;
        FOREACH login IN ARRAY ARRAY['a', 'b'] LOOP
            login := format('stormwire_%s_%s', purpose, login);
            IF to_regrole(login) IS NULL THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', login);
            END IF;
            IF NOT pg_has_role(login, 'stormwire_' || purpose, 'MEMBER') THEN
                EXECUTE format('GRANT %I TO %I', 'stormwire_' || purpose, login);
            END IF;
            IF purpose = 'owner' THEN
                EXECUTE format('ALTER ROLE %I SET role = stormwire_owner', login);
            END IF;
        END LOOP;
    END LOOP;
    -- Who hands tables over and sets defaults for their owner must be one of its members.
    IF NOT pg_has_role(current_user, 'stormwire_owner', 'USAGE') THEN
        EXECUTE format('GRANT stormwire_owner TO %I', current_user);
    END IF;
END $$;

\if :{?owner_password}
    ALTER ROLE stormwire_owner_a LOGIN PASSWORD :'owner_password';
\endif
\if :{?gateway_password}
    ALTER ROLE stormwire_gateway_a LOGIN PASSWORD :'gateway_password';
\endif
\if :{?messages_password}
    ALTER ROLE stormwire_messages_a LOGIN PASSWORD :'messages_password';
\endif
\if :{?identity_password}
    ALTER ROLE stormwire_identity_a LOGIN PASSWORD :'identity_password';
\endif
\if :{?backup_password}
    ALTER ROLE stormwire_backup_a LOGIN PASSWORD :'backup_password';
\endif

REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public
    TO stormwire_owner, stormwire_gateway, stormwire_messages, stormwire_identity, stormwire_backup;
GRANT CREATE ON SCHEMA public TO stormwire_owner;

-- Stormwire's tables, sequences and functions that belong to somebody else become the owner's. Whoever had them
-- is made a member of the owner, so that what still signs in as that role goes on.
DO $$
DECLARE
    own CONSTANT text[] := ARRAY['ledger', 'leases', 'workers', 'gaps', 'dead_letters', 'channels', 'timeline',
        'event_log', 'removed', 'removal', 'maintenance', 'read_positions', 'operator_audit', 'settings',
        'archive_migrations'];
    one record;
BEGIN
    FOR one IN
        SELECT c.oid::regclass AS name, 'TABLE' AS kind, c.relowner AS owner
        FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
          AND (c.relname = ANY (own) OR c.relname LIKE 'identity\_%'
               OR c.oid IN (SELECT relid FROM pg_partition_tree(to_regclass('events'))))
          AND c.relowner <> 'stormwire_owner'::regrole
    LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO stormwire_owner', one.name);
        IF NOT pg_has_role(one.owner, 'stormwire_owner', 'USAGE') THEN
            EXECUTE format('GRANT stormwire_owner TO %s', one.owner::regrole);
        END IF;
    END LOOP;
    FOR one IN
        SELECT p.oid::regprocedure AS name FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace
          AND (p.proname LIKE 'stormwire\_%' OR p.proname LIKE 'identity\_%')
          AND p.proowner <> 'stormwire_owner'::regrole
    LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO stormwire_owner', one.name);
    END LOOP;
END $$;

-- A backup reads everything there is in the schema, and what is made later.
GRANT SELECT ON ALL TABLES IN SCHEMA public TO stormwire_backup;
GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO stormwire_backup;
ALTER DEFAULT PRIVILEGES FOR ROLE stormwire_owner IN SCHEMA public GRANT SELECT ON TABLES TO stormwire_backup;
ALTER DEFAULT PRIVILEGES FOR ROLE stormwire_owner IN SCHEMA public GRANT SELECT ON SEQUENCES TO stormwire_backup;

-- What the others need of the tables that are there is said by the migrations that made these; those to come
-- give it as they run.
DO $$
BEGIN
    IF to_regclass('ledger') IS NOT NULL THEN
        IF to_regproc('stormwire_give_rights') IS NULL THEN
            RAISE EXCEPTION 'this database has the schema of a program that knows no roles; run `stormwire migrate` of a newer one first';
        END IF;
        PERFORM stormwire_give_rights();
    END IF;
    IF to_regproc('identity_give_rights') IS NOT NULL THEN
        PERFORM identity_give_rights();
    END IF;
END $$;
COMMIT;
