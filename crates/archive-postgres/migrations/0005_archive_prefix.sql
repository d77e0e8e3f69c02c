-- The events of a partition in its own order, for pages over many channels. Rows arrive nearly in that
-- order, so ranges of blocks do: such an index costs a batch next to nothing, where one of single rows
-- costs a fifth. What was not summarised yet is looked through. A filled database is indexed before the
-- program starts to write again.
CREATE INDEX events_place ON events USING brin (partition, epoch, "offset")
    WITH (pages_per_range = 32, autosummarize = on);
