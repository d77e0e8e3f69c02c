-- Everything the embedded engine keeps, in one file. Times are Unix milliseconds.

-- The journal -----------------------------------------------------------------------------------

-- One row a partition. `trimmed` and `ts` outlive the frames: numbers are never given out twice and
-- time never goes back, also when every frame was removed.
CREATE TABLE logs (
    partition INTEGER PRIMARY KEY,
    epoch     INTEGER NOT NULL,
    trimmed   INTEGER NOT NULL,
    ts        INTEGER NOT NULL
) STRICT;

-- `id` packs partition (6 bits), epoch (16) and sequence number (41), so that a log is one range of
-- one key and a frame costs one insertion at the end of it.
CREATE TABLE frames (
    id    INTEGER PRIMARY KEY,
    ts    INTEGER NOT NULL,
    bytes BLOB NOT NULL
) STRICT;

-- The archive -----------------------------------------------------------------------------------

CREATE TABLE ledger (
    partition INTEGER PRIMARY KEY,
    epoch     INTEGER NOT NULL,
    last_seq  INTEGER NOT NULL,
    appender  BLOB,
    counter   INTEGER
) STRICT;

CREATE TABLE leases (
    partition  INTEGER PRIMARY KEY,
    worker     TEXT,
    token      INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE workers (
    worker     TEXT PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE channels (
    id          INTEGER PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    namespace   TEXT NOT NULL,
    partition   INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    created_by  TEXT NOT NULL,
    title       TEXT,
    last_epoch  INTEGER NOT NULL,
    last_offset INTEGER NOT NULL,
    last_at     INTEGER NOT NULL,
    meta        TEXT,
    count       INTEGER NOT NULL
) STRICT;

-- `data` is kept as bytes, JSON and binary alike: what a gateway acknowledged is stored whatever it is.
CREATE TABLE events (
    channel      INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,
    "offset"     INTEGER NOT NULL,
    ts           INTEGER NOT NULL,
    published_by TEXT NOT NULL,
    id           TEXT,
    type         TEXT,
    key          TEXT,
    binary       INTEGER NOT NULL,
    data         BLOB NOT NULL,
    PRIMARY KEY (channel, epoch, "offset")
) STRICT, WITHOUT ROWID;

CREATE TABLE gaps (
    partition   INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    from_offset INTEGER NOT NULL,
    to_offset   INTEGER NOT NULL,
    reason      TEXT NOT NULL,
    PRIMARY KEY (partition, epoch, from_offset)
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letters (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    partition   INTEGER NOT NULL,
    epoch       INTEGER NOT NULL,
    "offset"    INTEGER NOT NULL,
    ts          INTEGER NOT NULL,
    channel     TEXT,
    error       TEXT NOT NULL,
    bytes       BLOB NOT NULL,
    whole_frame INTEGER NOT NULL
) STRICT;

-- For people and scripts.
CREATE VIEW event_log AS
SELECT c.name AS channel,
       e.epoch AS epoch,
       e."offset" AS "offset",
       coalesce(e.id, c.partition || '-' || e.epoch || '-' || e."offset") AS id,
       e.type AS type,
       CASE e.binary WHEN 0 THEN CAST(e.data AS TEXT) ELSE e.data END AS data,
       e.published_by AS producer,
       strftime('%Y-%m-%dT%H:%M:%S', e.ts / 1000, 'unixepoch') || printf('.%03dZ', e.ts % 1000) AS ts
FROM events e
JOIN channels c ON c.id = e.channel;
