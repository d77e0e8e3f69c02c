-- A partition's logs, one an epoch. What an ended epoch holds stays readable until it is persisted.
CREATE TABLE logs_by_epoch (
    partition INTEGER NOT NULL,
    epoch     INTEGER NOT NULL,
    trimmed   INTEGER NOT NULL,
    ts        INTEGER NOT NULL,
    PRIMARY KEY (partition, epoch)
) STRICT, WITHOUT ROWID;

INSERT INTO logs_by_epoch SELECT partition, epoch, trimmed, ts FROM logs;
DROP TABLE logs;
ALTER TABLE logs_by_epoch RENAME TO logs;
