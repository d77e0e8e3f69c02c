//! The engine on real nats-servers, each test with its own.

mod appender;
mod cluster;
mod conformance;
mod one_server;
mod peers;
mod signals;
