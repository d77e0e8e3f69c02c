//! How to reach NATS, and what the streams are to be like.

use std::path::PathBuf;
use std::time::Duration;

/// Where NATS is, who we are there, and the settings of the streams that are made.
#[derive(Clone)]
pub struct NatsConfig {
    /// Servers of one cluster, `nats://[user:password@]host:port`, `nats://[token@]host:port` or `tls://…`.
    /// One is enough: the others are learnt from it.
    pub urls: Vec<String>,
    /// The name of this process in NATS's list of connections.
    pub name: String,
    /// User name; goes before one in the URLs.
    pub user: Option<String>,
    /// That user's password.
    pub password: Option<String>,
    /// A `.creds` file with a user's JWT and key.
    pub credentials: Option<PathBuf>,
    /// Certificates of authorities to trust besides the system's own, PEM. Turns TLS on.
    pub tls_ca: Option<PathBuf>,
    /// The client's own certificate and key, PEM, where the servers ask for one.
    pub tls_identity: Option<(PathBuf, PathBuf)>,
    /// Copies of each stream: 1 on a single server, 3 in a cluster.
    pub replicas: u8,
    /// Bytes that one partition's stream may take before appends are refused.
    pub max_bytes: u64,
    /// Bytes that the stream of all partitions' tables of producers may take.
    pub tables_max_bytes: u64,
    /// Longest wait for the acknowledgement of one attempt to append.
    pub append_deadline: Duration,
    /// Longest wait for one attempt of any other call.
    pub deadline: Duration,
}

impl Default for NatsConfig {
    /// A server on this machine, one copy, 1 GiB a partition.
    fn default() -> Self {
        Self {
            urls: vec!["nats://127.0.0.1:4222".to_owned()],
            name: "stormwire".to_owned(),
            user: None,
            password: None,
            credentials: None,
            tls_ca: None,
            tls_identity: None,
            replicas: 1,
            max_bytes: 1 << 30,
            tables_max_bytes: 512 << 20,
            append_deadline: Duration::from_secs(2),
            deadline: Duration::from_secs(2),
        }
    }
}

/// A configuration with which no connection can even be tried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NatsError {
    /// No server is named.
    #[error(
        "no NATS server is configured; expected at least one URL such as nats://127.0.0.1:4222"
    )]
    NoUrl,
    /// A URL is not one.
    #[error("{url:?} is not the URL of a NATS server (nats://host:port): {reason}")]
    Url {
        /// What was given, without the password.
        url: String,
        /// What the parser says.
        reason: String,
    },
    /// A file of the configuration cannot be used.
    #[error("the NATS credentials {path:?} cannot be used: {reason}")]
    Credentials {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The client could not be started.
    #[error("the NATS client cannot start: {0}")]
    Start(String),
}
