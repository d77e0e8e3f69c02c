-- Retention and read positions: bytes by channel, what was removed and by whom, how far users have read.

ALTER TABLE channels ADD COLUMN bytes bigint NOT NULL DEFAULT 0;

UPDATE channels c
SET bytes = n.bytes
FROM (SELECT e.channel, sum(coalesce(octet_length(e.data), octet_length(e.data_binary), 0)) AS bytes
      FROM events e JOIN ledger l ON l.partition = e.partition
      WHERE (e.epoch, e."offset") <= (l.counted_epoch, l.counted_seq * 4096 + 4095)
      GROUP BY e.channel) n
WHERE c.name = n.channel;

-- Through which position a channel's events were removed. Written in the transaction that removes them.
CREATE TABLE removed (
    channel    text COLLATE "C" PRIMARY KEY,
    epoch      integer NOT NULL,
    "offset"   bigint  NOT NULL,
    removed_at timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 70);

-- What was removed and is not yet subtracted from `channels`, whose rows the workers are busy with.
CREATE TABLE removal (
    channel text COLLATE "C" PRIMARY KEY,
    events  bigint NOT NULL,
    bytes   bigint NOT NULL
) WITH (fillfactor = 70);

-- Who may remove.
CREATE TABLE maintenance (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    worker     text NOT NULL DEFAULT '',
    expires_at timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO maintenance DEFAULT VALUES;

CREATE TABLE read_positions (
    user_name  text COLLATE "C" NOT NULL,
    channel    text COLLATE "C" NOT NULL,
    epoch      integer NOT NULL,
    "offset"   bigint  NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_name, channel)
) WITH (fillfactor = 70);

CREATE OR REPLACE FUNCTION stormwire_recount(p_partition smallint)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    held ledger;
BEGIN
    SELECT * INTO held FROM ledger WHERE partition = p_partition FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    IF held.uncounted_since IS NOT NULL THEN
        UPDATE channels c
        SET count = c.count + n.count, bytes = c.bytes + n.bytes,
            last_epoch = n.last[1], last_offset = n.last[2], last_at = n.last_at
        FROM (SELECT channel, count(*) AS count, max(ARRAY[epoch, "offset"]) AS last, max(ts) AS last_at,
                     sum(coalesce(octet_length(data), octet_length(data_binary), 0)) AS bytes
              FROM events
              WHERE partition = p_partition
                AND ts >= held.uncounted_since
                AND (epoch, "offset") > (held.counted_epoch, held.counted_seq * 4096 + 4095)
              GROUP BY channel) n
        WHERE c.name = n.channel;
    END IF;
    UPDATE ledger
    SET counted_epoch = epoch, counted_seq = last_seq, uncounted_since = NULL
    WHERE partition = p_partition;
    RETURN held.last_seq;
END $$;

-- As before, and counts bytes as well. A worker of the version before leaves `p_count_bytes` out.
DROP FUNCTION stormwire_advance(
    smallint, text, bigint, integer, bigint, bigint, bytea, bigint, bigint, bigint,
    text[], bigint[], text[], bigint[], bigint, text[], bigint[], bigint[], bigint[]);
CREATE FUNCTION stormwire_advance(
    p_partition smallint, p_worker text, p_token bigint,
    p_epoch integer, p_expected bigint, p_through bigint, p_appender bytea, p_counter bigint,
    p_min_ts bigint, p_max_ts bigint,
    p_new_names text[], p_new_at bigint[], p_new_by text[], p_new_offsets bigint[],
    p_counted_from bigint, p_count_names text[], p_counts bigint[],
    p_count_offsets bigint[], p_count_at bigint[], p_count_bytes bigint[] DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    held    ledger;
    latest  timeline;
    epoch_0 CONSTANT timestamptz := 'epoch';
    ms      CONSTANT interval := '1 millisecond';
    min_at  CONSTANT timestamptz := epoch_0 + p_min_ts * ms;
    max_at  CONSTANT timestamptz := epoch_0 + p_max_ts * ms;
BEGIN
    PERFORM 1 FROM leases
    WHERE partition = p_partition AND worker = p_worker AND token = p_token
      AND expires_at > clock_timestamp()
    FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the lease of partition % is not held', p_partition USING ERRCODE = 'SW001';
    END IF;
    SELECT * INTO held FROM ledger WHERE partition = p_partition FOR UPDATE;
    IF NOT FOUND OR held.last_seq <> p_expected OR held.epoch > p_epoch THEN
        RAISE EXCEPTION 'the ledger of partition % has moved', p_partition
            USING ERRCODE = 'SW002', DETAIL = coalesce(held.last_seq, 0)::text;
    END IF;
    IF p_counted_from IS NOT NULL AND held.counted_seq <> p_counted_from THEN
        RAISE EXCEPTION 'counts begin at %, not at %', p_counted_from, held.counted_seq
            USING ERRCODE = 'SW003';
    END IF;

    UPDATE ledger
    SET epoch = p_epoch, last_seq = p_through, last_appender = p_appender, last_counter = p_counter,
        updated_at = clock_timestamp(),
        counted_epoch = CASE WHEN p_counted_from IS NULL THEN counted_epoch ELSE p_epoch END,
        counted_seq = CASE WHEN p_counted_from IS NULL THEN counted_seq ELSE p_through END,
        uncounted_since = CASE WHEN p_counted_from IS NULL THEN least(uncounted_since, min_at) END
    WHERE partition = p_partition;

    INSERT INTO channels (name, namespace, partition, created_at, created_by, last_epoch, last_offset, last_at)
    SELECT n.name, split_part(n.name, ':', 1), p_partition, epoch_0 + n.at * ms, n.by, p_epoch, n.off, epoch_0 + n.at * ms
    FROM unnest(p_new_names, p_new_at, p_new_by, p_new_offsets) AS n (name, at, by, off)
    ON CONFLICT (name) DO NOTHING;

    UPDATE channels c
    SET count = c.count + n.count, bytes = c.bytes + coalesce(n.bytes, 0),
        last_epoch = p_epoch, last_offset = n.off, last_at = epoch_0 + n.at * ms
    FROM unnest(p_count_names, p_counts, p_count_offsets, p_count_at, p_count_bytes)
        AS n (name, count, off, at, bytes)
    WHERE c.name = n.name;

    IF p_min_ts IS NOT NULL THEN
        SELECT * INTO latest FROM timeline
        WHERE partition = p_partition ORDER BY epoch DESC, first_seq DESC LIMIT 1;
        -- Nothing before may claim a lower bound above a time that now follows it.
        UPDATE timeline SET first_ts = min_at WHERE partition = p_partition AND first_ts > min_at;
        IF latest.epoch = p_epoch AND latest.minute = date_trunc('minute', min_at) THEN
            UPDATE timeline
            SET last_seq = p_through, last_ts = greatest(last_ts, max_at)
            WHERE partition = p_partition AND epoch = p_epoch AND first_seq = latest.first_seq;
        ELSE
            INSERT INTO timeline (partition, epoch, first_seq, last_seq, minute, first_ts, last_ts)
            VALUES (p_partition, p_epoch, p_expected + 1, p_through, date_trunc('minute', min_at),
                    min_at, greatest(latest.last_ts, max_at));
        END IF;
    END IF;
END $$;

-- Raises SW004 unless the worker may remove; then nobody else may before this transaction ends.
CREATE FUNCTION stormwire_maintains(p_worker text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM maintenance WHERE worker = p_worker AND expires_at > clock_timestamp() FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION '% does not maintain this archive', p_worker USING ERRCODE = 'SW004';
    END IF;
END $$;

-- The namespaces that have events in a table, by hopping along its index.
CREATE FUNCTION stormwire_namespaces(p_table regclass) RETURNS SETOF text LANGUAGE plpgsql STABLE AS $$
DECLARE
    found_name text;
    from_name  text := '';
BEGIN
    LOOP
        EXECUTE format('SELECT split_part(channel, '':'', 1) FROM ONLY %s WHERE channel >= $1 ORDER BY channel LIMIT 1', p_table)
            INTO found_name USING from_name;
        EXIT WHEN found_name IS NULL;
        RETURN NEXT found_name;
        from_name := found_name || ';';
    END LOOP;
END $$;

-- Notes what is being removed: channel, events, bytes, last position.
CREATE FUNCTION stormwire_note_removal(p_channels text[], p_events bigint[], p_bytes bigint[], p_epochs integer[], p_offsets bigint[])
RETURNS void LANGUAGE sql AS $$
    INSERT INTO removed (channel, epoch, "offset")
    SELECT n.channel, n.epoch, n.off FROM unnest(p_channels, p_epochs, p_offsets) AS n (channel, epoch, off)
    ON CONFLICT (channel) DO UPDATE
    SET epoch = excluded.epoch, "offset" = excluded."offset", removed_at = excluded.removed_at
    WHERE (removed.epoch, removed."offset") < (excluded.epoch, excluded."offset");

    INSERT INTO removal (channel, events, bytes)
    SELECT n.channel, n.events, n.bytes FROM unnest(p_channels, p_events, p_bytes) AS n (channel, events, bytes)
    ON CONFLICT (channel) DO UPDATE
    SET events = removal.events + excluded.events, bytes = removal.bytes + excluded.bytes;
$$;

-- Removes up to p_limit of a namespace's events from before p_before out of one table and says how many.
-- Events that `channels` does not count yet stay for a moment longer.
CREATE FUNCTION stormwire_expire(p_worker text, p_table regclass, p_namespace text, p_before timestamptz, p_limit integer)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
BEGIN
    PERFORM stormwire_maintains(p_worker);
    EXECUTE format(
        'WITH doomed AS MATERIALIZED (
             SELECT e.ctid AS place FROM ONLY %1$s e JOIN ledger l ON l.partition = e.partition
             WHERE e.channel >= $1 || '':'' AND e.channel < $1 || '';'' AND e.ts < $2
               AND (e.epoch, e."offset") <= (l.counted_epoch, l.counted_seq * 4096 + 4095)
             ORDER BY e.channel, e.epoch, e."offset" LIMIT $3),
         gone AS (
             DELETE FROM ONLY %1$s e USING doomed WHERE e.ctid = doomed.place
             RETURNING e.channel, e.epoch, e."offset",
                       coalesce(octet_length(e.data), octet_length(e.data_binary), 0) AS size),
         sums AS (
             SELECT channel, count(*) AS events, sum(size)::bigint AS bytes, max(ARRAY[epoch, "offset"]) AS last
             FROM gone GROUP BY channel),
         noted AS (
             SELECT stormwire_note_removal(array_agg(channel), array_agg(events), array_agg(bytes),
                                           array_agg(last[1]::integer), array_agg(last[2]))
             FROM sums)
         SELECT coalesce((SELECT sum(events) FROM sums), 0)::bigint FROM noted', p_table)
        INTO gone USING p_namespace, p_before, p_limit;
    RETURN gone;
END $$;

-- Removes a whole table of events and says how many they were; null if some of them are not counted yet.
-- One transaction, so there is no state between. The lock that holds everybody up is taken last and is
-- waited for half a second at most; whoever calls tries again later. (A table with a default partition
-- cannot be detached concurrently.)
CREATE FUNCTION stormwire_drop_events(p_worker text, p_table regclass, p_from timestamptz)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    gone    bigint;
    is_late boolean;
BEGIN
    PERFORM stormwire_maintains(p_worker);
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

-- Subtracts up to p_limit channels' removals from `channels` and says how many are left. Takes the ledger
-- first, as every batch does, so that it never waits for a worker that waits for it.
CREATE FUNCTION stormwire_settle_removal(p_limit integer) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM removal) THEN
        RETURN 0;
    END IF;
    PERFORM 1 FROM ledger ORDER BY partition FOR UPDATE;
    WITH part AS (
        DELETE FROM removal WHERE channel IN (SELECT channel FROM removal ORDER BY channel LIMIT p_limit)
        RETURNING channel, events, bytes)
    UPDATE channels c
    SET count = greatest(c.count - part.events, 0), bytes = greatest(c.bytes - part.bytes, 0)
    FROM part WHERE c.name = part.channel;
    RETURN (SELECT count(*) FROM removal);
END $$;
