-- The archive: events by time, and the ledger that makes each of them count once.

CREATE TABLE events (
    ts           timestamptz NOT NULL,
    "offset"     bigint      NOT NULL,
    epoch        integer     NOT NULL,
    partition    smallint    NOT NULL,
    channel      text COLLATE "C" NOT NULL,
    published_by text COLLATE "C" NOT NULL,
    type         text COLLATE "C",
    key          text COLLATE "C",
    id           text COLLATE "C",
    -- One of the two: JSON exactly as it came in (never parsed again), or bytes.
    data         text COLLATE "C",
    data_binary  bytea
) PARTITION BY RANGE (ts);

CREATE INDEX events_channel_position ON events (channel, epoch, "offset");
CREATE INDEX events_ts ON events USING brin (ts) WITH (pages_per_range = 32);

-- Catches rows whose own partition is not there; they move when it is made.
CREATE TABLE events_default PARTITION OF events DEFAULT;

-- How far each partition is stored. epoch 0: nothing yet.
-- counted_*: up to where the counts in `channels` reach; uncounted_since: the oldest ts beyond that.
CREATE TABLE ledger (
    partition       smallint PRIMARY KEY,
    epoch           integer  NOT NULL DEFAULT 0,
    last_seq        bigint   NOT NULL DEFAULT 0,
    last_appender   bytea,
    last_counter    bigint,
    updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    counted_epoch   integer  NOT NULL DEFAULT 0,
    counted_seq     bigint   NOT NULL DEFAULT 0,
    uncounted_since timestamptz
) WITH (fillfactor = 25);

CREATE TABLE leases (
    partition  smallint PRIMARY KEY,
    worker     text     NOT NULL DEFAULT '',
    token      bigint   NOT NULL DEFAULT 0,
    expires_at timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 25);

CREATE TABLE workers (
    worker     text PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 25);

-- Stretches of a partition's log that are not there and never will be. A stretch of one channel alone
-- names it.
CREATE TABLE gaps (
    partition   smallint NOT NULL,
    epoch       integer  NOT NULL,
    from_offset bigint   NOT NULL,
    to_offset   bigint   NOT NULL,
    channel     text COLLATE "C",
    reason      text     NOT NULL,
    found_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (partition, epoch, from_offset)
);

CREATE TABLE dead_letters (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partition   smallint NOT NULL,
    epoch       integer  NOT NULL,
    "offset"    bigint   NOT NULL,
    ts          timestamptz NOT NULL,
    channel     text COLLATE "C",
    error       text     NOT NULL,
    bytes       bytea    NOT NULL,
    whole_frame boolean  NOT NULL,
    found_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Filled at a channel's first event. count and last_* stand at the ledger's counted_seq; what came
-- after it is added by the reader from `events`.
CREATE TABLE channels (
    name        text COLLATE "C" PRIMARY KEY,
    namespace   text COLLATE "C" NOT NULL,
    partition   smallint    NOT NULL,
    created_at  timestamptz NOT NULL,
    created_by  text        NOT NULL,
    title       text,
    last_epoch  integer     NOT NULL,
    last_offset bigint      NOT NULL,
    last_at     timestamptz NOT NULL,
    count       bigint      NOT NULL DEFAULT 0,
    meta        jsonb       NOT NULL DEFAULT '{}'
) WITH (fillfactor = 70);

-- One row a minute and partition: which frames were stored, and bounds of their times. A position is
-- turned into a time with it, so that a query touches only the partitions that can matter.
-- first_ts is at or below the ts of this row's frames and of all later ones; last_ts is at or above the
-- ts of this row's frames and of all earlier ones. Both hold even when the journal's clock steps back.
CREATE TABLE timeline (
    partition smallint NOT NULL,
    epoch     integer  NOT NULL,
    first_seq bigint   NOT NULL,
    last_seq  bigint   NOT NULL,
    minute    timestamptz NOT NULL,
    first_ts  timestamptz NOT NULL,
    last_ts   timestamptz NOT NULL,
    PRIMARY KEY (partition, epoch, first_seq)
) WITH (fillfactor = 90);

CREATE INDEX timeline_first_ts ON timeline (partition, first_ts);

CREATE VIEW event_log AS
SELECT channel,
       epoch,
       "offset",
       coalesce(id, partition || '-' || epoch || '-' || "offset") AS id,
       type,
       coalesce(data, translate(encode(data_binary, 'base64'), E'\n', '')) AS data,
       published_by AS producer,
       ts
FROM events;

-- Makes the partition of events for [p_from, p_to) unless it is there. Rows that waited for it in the
-- default partition move. Attaching locks neither the table nor its other partitions against writers.
CREATE FUNCTION stormwire_make_partition(p_name text, p_from timestamptz, p_to timestamptz)
RETURNS boolean LANGUAGE plpgsql AS $$
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
    EXECUTE format('ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   p_name, p_from, p_to);
    RETURN true;
END $$;

-- Brings the counts of a partition's channels up to its ledger and says where that is.
CREATE FUNCTION stormwire_recount(p_partition smallint)
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
        SET count = c.count + n.count, last_epoch = n.last[1], last_offset = n.last[2], last_at = n.last_at
        FROM (SELECT channel, count(*) AS count, max(ARRAY[epoch, "offset"]) AS last, max(ts) AS last_at
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

-- The last statement of a batch: checks lease and ledger, moves the ledger, and raises otherwise:
-- SW001 the lease is lost, SW002 the ledger stands elsewhere (its last_seq in DETAIL), SW003 the counts
-- do not begin where the table's end. Times are milliseconds of Unix time.
CREATE FUNCTION stormwire_advance(
    p_partition smallint, p_worker text, p_token bigint,
    p_epoch integer, p_expected bigint, p_through bigint, p_appender bytea, p_counter bigint,
    p_min_ts bigint, p_max_ts bigint,
    p_new_names text[], p_new_at bigint[], p_new_by text[], p_new_offsets bigint[],
    p_counted_from bigint, p_count_names text[], p_counts bigint[],
    p_count_offsets bigint[], p_count_at bigint[]
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
    SET count = c.count + n.count, last_epoch = p_epoch, last_offset = n.off, last_at = epoch_0 + n.at * ms
    FROM unnest(p_count_names, p_counts, p_count_offsets, p_count_at) AS n (name, count, off, at)
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
