//! GATEWAY: what clients talk to, over WebSocket and HTTP.

pub mod ingest;
