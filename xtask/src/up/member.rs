//! One process of the local cluster: named, watched, brought back.

use std::sync::Arc;
use stormwire_testkit::nats::NatsServer;
use stormwire_testkit::postgres::PostgresServer;
use stormwire_testkit::redis::Redis;
use stormwire_testkit::{Launch, Port, Server, StartError, http_ok};

/// A process and how it is started again.
#[derive(Debug, Clone)]
pub(crate) enum Member {
    /// `nats_1`, ..
    Nats(u16, Arc<NatsServer>),
    /// `postgres`
    Postgres(Arc<PostgresServer>),
    /// `redis`
    Redis(Arc<Redis>),
    /// `gateway_1`, `worker_1`, ..
    Role(Arc<Role>),
}

/// A process of `stormwire`.
#[derive(Debug)]
pub(crate) struct Role {
    /// As in `PID_<name>`.
    pub(crate) name: String,
    server: Server,
    /// Clients connect here, or gateways where it is an identity service; a worker has none.
    pub(crate) listen: Option<Port>,
    /// Probes and metrics are here.
    pub(crate) management: Port,
}

impl Role {
    /// Starts it and waits until it says that it is ready.
    pub(crate) async fn start(
        name: String,
        launch: Launch,
        listen: Option<Port>,
        management: Port,
    ) -> Result<Self, StartError> {
        let role = Self { name, server: Server::new(launch), listen, management };
        role.launch().await?;
        Ok(role)
    }

    async fn launch(&self) -> Result<(), StartError> {
        let port = self.management.number();
        self.server.start(move || http_ok(port, "/readyz")).await
    }
}

impl Member {
    /// As in `PID_<name>`.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Nats(number, _) => format!("nats_{number}"),
            Self::Postgres(_) => "postgres".to_owned(),
            Self::Redis(_) => "redis".to_owned(),
            Self::Role(role) => role.name.clone(),
        }
    }

    fn server(&self) -> &Server {
        match self {
            Self::Nats(_, nats) => nats,
            Self::Postgres(postgres) => postgres,
            Self::Redis(redis) => redis,
            Self::Role(role) => &role.server,
        }
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.server().pid()
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&self) -> bool {
        self.server().is_running()
    }

    /// Starts it again on the same port.
    pub(crate) async fn restart(&self) -> Result<(), StartError> {
        match self {
            Self::Nats(_, nats) => nats.try_restart().await,
            Self::Postgres(postgres) => postgres.try_restart().await,
            Self::Redis(redis) => redis.try_restart().await,
            Self::Role(role) => role.launch().await,
        }
    }

    /// Asks it to end and waits a bounded time; then it is killed.
    pub(crate) fn stop(&self) {
        self.server().stop();
    }
}
