-- The newest event of a key. Events without a key cost nothing.
CREATE INDEX events_by_key ON events (channel, key, epoch, "offset") WHERE key IS NOT NULL;
