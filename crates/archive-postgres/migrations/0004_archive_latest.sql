-- The newest event of a key. Events without a key cost nothing. New tables of events are made like the
-- parent, with this index. A filled database is indexed before the program starts to write again.
CREATE INDEX events_channel_key ON events (channel, key, epoch, "offset") WHERE key IS NOT NULL;
