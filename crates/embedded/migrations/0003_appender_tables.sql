-- The appenders' tables of producers: one row a partition, as of frame `through` of `epoch`.
CREATE TABLE appender_tables (
    partition INTEGER PRIMARY KEY,
    epoch     INTEGER NOT NULL,
    through   INTEGER NOT NULL,
    bytes     BLOB NOT NULL
) STRICT;
