-- Retention and read positions: bytes by channel, what was removed and by whom, how far users have read.

ALTER TABLE channels ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;

UPDATE channels
SET bytes = (SELECT coalesce(sum(length(data)), 0) FROM events WHERE events.channel = channels.id);

-- Through which position a channel's events were removed. Written in the transaction that removes them.
CREATE TABLE removed (
    channel  INTEGER PRIMARY KEY,
    epoch    INTEGER NOT NULL,
    "offset" INTEGER NOT NULL
) STRICT;

-- Who may remove: one row.
CREATE TABLE maintenance (
    only_row   INTEGER PRIMARY KEY CHECK (only_row = 1),
    worker     TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE read_positions (
    user     TEXT NOT NULL,
    channel  TEXT NOT NULL,
    epoch    INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    PRIMARY KEY (user, channel)
) STRICT, WITHOUT ROWID;
