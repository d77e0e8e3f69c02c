//! The cluster under test: three NATS nodes, Postgres, Redis, gateways and workers as child processes,
//! with a proxy on every way between them that can be spoilt.

use crate::clock::Clock;
use crate::packets::address_of;
use crate::{Failure, Outcome};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use stormwire_testkit::nats::{NatsCluster, NatsOptions};
use stormwire_testkit::postgres::{PostgresOptions, PostgresServer};
use stormwire_testkit::proxy::{Network, Proxy};
use stormwire_testkit::redis::{Redis, RedisOptions};
use stormwire_testkit::{Launch, Port, Server, http_ok};

const DATABASE: &str = "stormwire";
pub(crate) const NATS_NODES: usize = 3;
const GATEWAYS: usize = 3;
const WORKERS: usize = 2;
/// How long everything may take to be ready after it was healed, on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// How the cluster is set up.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The executable.
    pub(crate) program: PathBuf,
    /// Data and logs.
    pub(crate) folder: PathBuf,
    /// More variables for gateways and workers.
    pub(crate) variables: Vec<(String, String)>,
    /// Where Postgres keeps its data, if not in the folder.
    pub(crate) postgres: Option<PathBuf>,
    /// Whether gateways and workers have clocks that can be moved.
    pub(crate) clocks: bool,
}

/// A process of `stormwire` and its ways to the stores.
pub(crate) struct Role {
    pub(crate) name: String,
    pub(crate) server: Server,
    pub(crate) listen: Option<Port>,
    management: Port,
    /// Where it meets its stores; nobody else's do.
    pub(crate) stores: Ipv4Addr,
    pub(crate) to_nats: Vec<Arc<Proxy>>,
    pub(crate) to_postgres: Arc<Proxy>,
    pub(crate) to_redis: Arc<Proxy>,
    /// Its own clock, where it can be moved.
    pub(crate) clock: Option<Clock>,
}

impl Role {
    /// Starts the process; it need not be ready, its stores may be away.
    pub(crate) async fn launch(&self) -> Outcome {
        let port = self.management.number();
        let started = self.server.start(move || http_ok(port, "/healthz")).await;
        started.map_err(Failure::doing(&self.name))
    }

    pub(crate) async fn is_ready(&self) -> bool {
        http_ok(self.management.number(), "/readyz").await
    }

    /// Whether it says, when it is probed, that its clock is so many seconds off.
    pub(crate) async fn says_it_is_off(&self, seconds: i64) -> bool {
        let answers = http_ok(self.management.number(), "/healthz").await;
        answers && crate::clock::is_off(&self.server.log_path(), seconds)
    }
}

/// Everything that runs.
pub(crate) struct Cluster {
    pub(crate) nats: NatsCluster,
    pub(crate) postgres: PostgresServer,
    pub(crate) redis: Redis,
    pub(crate) gateways: Vec<Role>,
    pub(crate) workers: Vec<Role>,
    pub(crate) token: String,
}

impl Cluster {
    /// Starts all and waits until each is ready.
    pub(crate) async fn start(options: &Options) -> Outcome<Self> {
        let folder = &options.folder;
        let nats = NatsOptions {
            sync_always: true,
            folder: Some(folder.clone()),
            port: None,
            proxied_routes: true,
        };
        let nats = NatsCluster::try_start(3, &nats).await.map_err(Failure::doing("NATS"))?;
        let place = options.postgres.clone().unwrap_or_else(|| folder.join("postgres"));
        let postgres = PostgresOptions { folder: Some(place), ..PostgresOptions::default() };
        let postgres =
            PostgresServer::try_start(&postgres).await.map_err(Failure::doing("Postgres"))?;
        postgres.create_database(DATABASE).await.map_err(Failure::doing("the database"))?;
        let redis = RedisOptions { folder: Some(folder.join("redis")), port: None };
        let redis = Redis::try_start(&redis).await.map_err(Failure::doing("Redis"))?;
        let data_dir = folder.join("data");
        std::fs::create_dir_all(&data_dir).map_err(Failure::doing(data_dir.display()))?;
        let token = token(&options.program, &data_dir)?;
        let (gateways, workers) = (Vec::new(), Vec::new());
        let mut cluster = Self { nats, postgres, redis, gateways, workers, token };
        for number in 1..=GATEWAYS {
            let role = cluster.role(options, "gateway", number).await?;
            cluster.gateways.push(role);
        }
        for number in 1..=WORKERS {
            let role = cluster.role(options, "worker", number).await?;
            cluster.workers.push(role);
        }
        cluster.wait_ready().await?;
        Ok(cluster)
    }

    async fn role(&self, options: &Options, kind: &str, number: usize) -> Outcome<Role> {
        let name = format!("{kind}-{number}");
        let management = Port::reserve().map_err(Failure::doing("a port"))?;
        let stores = address_of(management.number());
        let mut to_nats = Vec::new();
        for node in self.nats.nodes() {
            to_nats.push(proxy(stores, &node.url()).await?);
        }
        let to_postgres = proxy(stores, &self.postgres.url(DATABASE)).await?;
        let to_redis = proxy(stores, &self.redis.url()).await?;
        let listen = match kind {
            "gateway" => Some(Port::reserve().map_err(Failure::doing("a port"))?),
            _ => None,
        };
        let nats: Vec<String> =
            to_nats.iter().map(|proxy| format!("nats://{}", proxy.address())).collect();
        let subcommand = if kind == "worker" { "messages" } else { kind };
        let mut launch = Launch::new(&name, &options.program, &options.folder)
            .arguments([subcommand])
            .variable("STORMWIRE_NAME", &name)
            .variable("STORMWIRE_DATA_DIR", options.folder.join("data").display().to_string())
            .variable("STORMWIRE_PARTITIONS", crate::PARTITIONS.to_string())
            .variable("STORMWIRE_JOURNAL_URL", nats.join(","))
            .variable("STORMWIRE_JOURNAL_REPLICAS", NATS_NODES.to_string())
            .variable(
                "STORMWIRE_ARCHIVE_URL",
                format!("postgres://postgres@{}/{DATABASE}", to_postgres.address()),
            )
            .variable("STORMWIRE_LIMITS_URL", format!("redis://{}", to_redis.address()))
            .variable("STORMWIRE_MANAGEMENT_LISTEN", format!("127.0.0.1:{}", management.number()));
        if let Some(listen) = &listen {
            launch = launch.variable("STORMWIRE_LISTEN", format!("127.0.0.1:{}", listen.number()));
        }
        let clock = match options.clocks {
            true => Some(Clock::new(&options.folder, &name)?),
            false => None,
        };
        for (name, value) in clock.iter().flat_map(Clock::variables) {
            launch = launch.variable(name, value);
        }
        for (name, value) in &options.variables {
            launch = launch.variable(name, value);
        }
        let server = Server::new(launch);
        let role = Role {
            name,
            server,
            listen,
            management,
            stores,
            to_nats,
            to_postgres,
            to_redis,
            clock,
        };
        role.launch().await?;
        Ok(role)
    }

    /// Gateways and workers.
    pub(crate) fn roles(&self) -> impl Iterator<Item = &Role> {
        self.gateways.iter().chain(&self.workers)
    }

    /// Where clients connect.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.gateways.iter().filter_map(|role| role.listen.as_ref()).map(Port::number).collect()
    }

    /// The archive, past all proxies.
    pub(crate) fn database_url(&self) -> String {
        self.postgres.url(DATABASE)
    }

    /// Drops the archive with everything in it, and makes an empty one of its name.
    pub(crate) async fn empty_database(&self) -> Outcome {
        let doing = || Failure::doing("the database");
        let drop = format!("DROP DATABASE {DATABASE} WITH (FORCE)");
        self.postgres.execute(&drop).await.map_err(doing())?;
        self.postgres.create_database(DATABASE).await.map_err(doing())
    }

    /// Mends every way, wakes and restarts every process, and waits until all are ready.
    pub(crate) async fn heal(&self) -> Outcome {
        for node in self.nats.nodes() {
            node.routes().for_each(|proxy| proxy.set(Network::Healthy));
            node.resume().await;
            if !node.is_running() {
                node.try_restart().await.map_err(Failure::doing("NATS again"))?;
            }
        }
        self.postgres.resume().await;
        if !self.postgres.is_running() {
            self.postgres.try_restart().await.map_err(Failure::doing("Postgres again"))?;
        }
        self.redis.resume().await;
        if !self.redis.is_running() {
            self.redis.try_restart().await.map_err(Failure::doing("Redis again"))?;
        }
        for role in self.roles() {
            let ways = role.to_nats.iter().chain([&role.to_postgres, &role.to_redis]);
            ways.for_each(|proxy| proxy.set(Network::Healthy));
            if let Some(clock) = &role.clock {
                clock.set(0)?;
            }
            role.server.resume().await;
            if !role.server.is_running() {
                role.launch().await?;
            }
        }
        self.wait_ready().await
    }

    async fn wait_ready(&self) -> Outcome {
        for role in self.roles() {
            let until = tokio::time::Instant::now() + READY_WITHIN;
            while !role.is_ready().await {
                if tokio::time::Instant::now() > until {
                    let log = role.server.log_path();
                    let why = format!("{} is not ready: see {}", role.name, log.display());
                    return Err(Failure::of(why));
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }

    /// Ends gateways and workers first, side by side, then the servers.
    pub(crate) async fn stop(self) {
        let mut stopping = tokio::task::JoinSet::new();
        for role in self.gateways.into_iter().chain(self.workers) {
            stopping.spawn_blocking(move || role.server.stop());
        }
        while stopping.join_next().await.is_some() {}
    }
}

/// A proxy at `host` before the server of a URL.
async fn proxy(host: Ipv4Addr, url: &str) -> Outcome<Arc<Proxy>> {
    let digits = url.rsplit(':').next().unwrap_or_default();
    let port: String = digits.chars().take_while(char::is_ascii_digit).collect();
    let target = format!("127.0.0.1:{port}").parse().map_err(Failure::doing(url))?;
    let proxy = Proxy::start_at(host.into(), target).await.map_err(Failure::doing("a proxy"))?;
    Ok(Arc::new(proxy))
}

fn token(program: &Path, data_dir: &Path) -> Outcome<String> {
    let output = Command::new(program)
        .args(["token", "--user", "chaos", "--ttl", "720h", "--publish", "*", "--subscribe", "*"])
        .arg("--data-dir")
        .arg(data_dir)
        .output()
        .map_err(Failure::doing("a token"))?;
    let token = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if token.is_empty() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Failure::of(format!("no token: {why}")));
    }
    Ok(token)
}
