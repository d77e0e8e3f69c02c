-- Roles of the database that may do what their processes do and no more. deploy/postgres/roles.sql makes them;
-- where nobody did, nothing here changes anything.

-- Makes the partition of events for [p_from, p_to) unless it is there. Rows that waited for it in the
-- default partition move. Attaching locks neither the table nor its other partitions against writers.
-- With the owner's rights, so that whoever stores events need own nothing. Whoever may do something with
-- `events` may do it with the new table.
CREATE OR REPLACE FUNCTION stormwire_make_partition(p_name text, p_from timestamptz, p_to timestamptz)
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    held record;
BEGIN
    -- A journal with a clock far off gets no partitions of its own: its rows stay in the default one.
    IF p_to < now() - interval '400 days' OR p_from > now() + interval '3 days' THEN
        RETURN false;
    END IF;
    PERFORM set_config('lock_timeout', '2s', true);
    PERFORM pg_advisory_xact_lock(823114, 1);
    IF to_regclass(quote_ident(p_name)) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE events INCLUDING ALL)', p_name);
    EXECUTE format(
        'WITH moved AS (DELETE FROM events_default WHERE ts >= %L AND ts < %L RETURNING *)
         INSERT INTO %I SELECT * FROM moved', p_from, p_to, p_name);
    FOR held IN SELECT a.grantee, a.privilege_type AS what
                FROM pg_class c, aclexplode(c.relacl) a
                WHERE c.oid = 'events'::regclass AND a.grantee NOT IN (0, c.relowner) LOOP
        EXECUTE format('GRANT %s ON %I TO %s', held.what, p_name, held.grantee::regrole);
    END LOOP;
    EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   p_name, p_from, p_to);
    RETURN true;
END $$;

-- Removes a whole table of events and says how many they were; null if some of them are not counted yet.
-- One transaction, so there is no state between. The lock that holds everybody up is taken last and is
-- waited for half a second at most; whoever calls tries again later. (A table with a default partition
-- cannot be detached concurrently.) With the owner's rights, and therefore of nothing but tables of events:
-- a view of the caller's would be read with them as well.
CREATE OR REPLACE FUNCTION stormwire_drop_events(p_worker text, p_table regclass, p_from timestamptz)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    gone    bigint;
    is_late boolean;
BEGIN
    PERFORM stormwire_maintains(p_worker);
    IF NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = p_table AND inhparent = 'events'::regclass) THEN
        RAISE EXCEPTION '% is not a table of events', p_table USING ERRCODE = 'wrong_object_type';
    END IF;
    PERFORM set_config('lock_timeout', '500ms', true);
    PERFORM pg_advisory_xact_lock(823114, 1);
    EXECUTE format('LOCK TABLE ONLY %s IN SHARE MODE', p_table);
    EXECUTE format(
        'SELECT EXISTS (SELECT FROM ledger l JOIN %s e ON e.partition = l.partition
         WHERE e.ts >= l.uncounted_since
           AND (e.epoch, e."offset") > (l.counted_epoch, l.counted_seq * 4096 + 4095))', p_table)
        INTO is_late;
    IF is_late THEN
        RETURN NULL;
    END IF;
    EXECUTE format(
        'WITH sums AS (
             SELECT channel, count(*) AS events, max(ARRAY[epoch, "offset"]) AS last,
                    sum(coalesce(octet_length(data), octet_length(data_binary), 0))::bigint AS bytes
             FROM %s GROUP BY channel),
         noted AS (
             SELECT stormwire_note_removal(array_agg(channel), array_agg(events), array_agg(bytes),
                                           array_agg(last[1]::integer), array_agg(last[2]))
             FROM sums)
         SELECT coalesce((SELECT sum(events) FROM sums), 0)::bigint FROM noted', p_table) INTO gone;
    DELETE FROM timeline WHERE last_ts < p_from;
    EXECUTE format('ALTER TABLE events DETACH PARTITION %s', p_table);
    EXECUTE format('DROP TABLE %s', p_table);
    RETURN gone;
END $$;

-- What operators set is changed with its line or not at all.
ALTER FUNCTION stormwire_set(text, text, text, bigint, bigint, text, text, text, text, text) SECURITY DEFINER;
ALTER FUNCTION stormwire_note_operator(bigint, text, text, text, text, text) SECURITY DEFINER;

-- A function with the owner's rights finds the schema's own tables, whatever the caller has put elsewhere.
DO $$
DECLARE
    one regprocedure;
BEGIN
    FOR one IN SELECT oid FROM pg_proc
               WHERE pronamespace = current_schema()::regnamespace AND prosecdef AND proname LIKE 'stormwire\_%' LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', one, current_schema());
    END LOOP;
END $$;

-- Gives the roles what they need of the tables and functions of this version. A migration that makes some
-- replaces this and calls it. Who backs up is given all of the schema by roles.sql.
CREATE FUNCTION stormwire_give_rights() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    part regclass;
BEGIN
    REVOKE EXECUTE ON FUNCTION
        stormwire_make_partition, stormwire_drop_events, stormwire_set, stormwire_note_operator FROM PUBLIC;
    IF to_regrole('stormwire_gateway') IS NOT NULL THEN
        GRANT SELECT ON events, ledger, timeline, removed, gaps, channels, settings, operator_audit,
            archive_migrations TO stormwire_gateway;
        GRANT SELECT, INSERT, UPDATE ON read_positions TO stormwire_gateway;
        GRANT EXECUTE ON FUNCTION stormwire_set, stormwire_note_operator TO stormwire_gateway;
    END IF;
    IF to_regrole('stormwire_messages') IS NOT NULL THEN
        GRANT SELECT ON archive_migrations TO stormwire_messages;
        GRANT SELECT, INSERT ON gaps TO stormwire_messages;
        GRANT SELECT, INSERT, UPDATE ON ledger, leases, channels, timeline, removed TO stormwire_messages;
        GRANT SELECT, INSERT, UPDATE, DELETE ON workers, removal TO stormwire_messages;
        GRANT SELECT, INSERT, DELETE ON dead_letters TO stormwire_messages;
        GRANT SELECT, UPDATE ON maintenance TO stormwire_messages;
        -- Retention removes rows out of one table at a time, by its own name.
        FOR part IN SELECT relid FROM pg_partition_tree('events') LOOP
            EXECUTE format('GRANT SELECT, INSERT, DELETE ON %s TO stormwire_messages', part);
        END LOOP;
        GRANT EXECUTE ON FUNCTION stormwire_make_partition, stormwire_drop_events TO stormwire_messages;
    END IF;
END $$;
REVOKE EXECUTE ON FUNCTION stormwire_give_rights FROM PUBLIC;
SELECT stormwire_give_rights();
