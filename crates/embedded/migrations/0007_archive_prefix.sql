-- All events in the order of their positions, for pages over many channels.
CREATE INDEX events_by_place ON events (epoch, "offset");
