//! The processes of a local cluster and what scripts are told of them.

use super::Options;
use super::member::{Member, Role};
use crate::shell;
use crate::{Failure, Outcome};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use stormwire_testkit::nats::{NatsCluster, NatsOptions};
use stormwire_testkit::postgres::{PostgresOptions, PostgresServer};
use stormwire_testkit::redis::{Redis, RedisOptions};
use stormwire_testkit::{Launch, Port};

const DATABASE: &str = "stormwire";
/// Where the first gateway listens if nobody else does.
const GATEWAY_PORT: u16 = 8080;

/// Everything that runs.
#[derive(Debug)]
pub(crate) struct Cluster {
    members: Vec<Member>,
    nats_url: String,
    database_url: String,
    redis_url: String,
    identity_url: Option<String>,
    token: String,
    data_dir: PathBuf,
}

impl Cluster {
    /// Starts all, the servers first, and waits until each is ready.
    pub(crate) async fn start(options: &Options, program: &Path) -> Outcome<Self> {
        let folder = &options.folder;
        if !options.keep && folder.exists() {
            std::fs::remove_dir_all(folder).map_err(Failure::doing(folder.display()))?;
        }
        let mut cluster = Self::servers(options).await?;
        cluster.token = token(program, &cluster.data_dir)?;
        for number in 1..=options.identities {
            let listen = Port::reserve().map_err(Failure::doing("a port"))?;
            let url = format!("http://127.0.0.1:{}", listen.number());
            cluster.role(options, program, ("identity", number), Some(listen)).await?;
            cluster.identity_url.get_or_insert(url);
        }
        for number in 1..=options.gateways {
            let listen = gateway_port(number).map_err(Failure::doing("a port"))?;
            cluster.role(options, program, ("gateway", number), Some(listen)).await?;
        }
        for number in 1..=options.workers {
            cluster.role(options, program, ("worker", number), None).await?;
        }
        Ok(cluster)
    }

    async fn servers(options: &Options) -> Outcome<Self> {
        let folder = &options.folder;
        shell::progress(&format!("starting {} NATS nodes, Postgres and Redis ...", options.nats));
        let nats = NatsOptions {
            sync_always: !options.no_sync,
            folder: Some(folder.clone()),
            ..NatsOptions::default()
        };
        let nats = NatsCluster::try_start(options.nats, &nats)
            .await
            .map_err(Failure::doing("the NATS cluster"))?;
        let postgres =
            PostgresOptions { folder: Some(folder.join("postgres")), ..PostgresOptions::default() };
        let postgres =
            PostgresServer::try_start(&postgres).await.map_err(Failure::doing("Postgres"))?;
        if !options.keep {
            postgres.create_database(DATABASE).await.map_err(Failure::doing("the database"))?;
        }
        let redis = RedisOptions { folder: Some(folder.join("redis")), port: None };
        let redis = Redis::try_start(&redis).await.map_err(Failure::doing("Redis"))?;
        let data_dir = folder.join("data");
        std::fs::create_dir_all(&data_dir).map_err(Failure::doing(data_dir.display()))?;
        let (nats_url, database_url, redis_url) = (nats.url(), postgres.url(DATABASE), redis.url());
        let mut members: Vec<Member> = (1..)
            .zip(nats.into_nodes())
            .map(|(number, node)| Member::Nats(number, Arc::new(node)))
            .collect();
        members.push(Member::Postgres(Arc::new(postgres)));
        members.push(Member::Redis(Arc::new(redis)));
        Ok(Self {
            members,
            nats_url,
            database_url,
            redis_url,
            identity_url: None,
            token: String::new(),
            data_dir,
        })
    }

    async fn role(
        &mut self,
        options: &Options,
        program: &Path,
        (kind, number): (&str, u16),
        listen: Option<Port>,
    ) -> Outcome {
        let name = format!("{kind}_{number}");
        let management = Port::reserve().map_err(Failure::doing("a port"))?;
        let subcommand = if kind == "worker" { "messages" } else { kind };
        let local = |port: &Port| format!("127.0.0.1:{}", port.number());
        let mut launch = Launch::new(&name, program, &options.folder)
            .arguments([subcommand])
            .variable("STORMWIRE_NAME", name.replace('_', "-"))
            .variable("STORMWIRE_DATA_DIR", self.data_dir.display().to_string())
            .variable("STORMWIRE_JOURNAL_URL", self.nats_url.clone())
            .variable("STORMWIRE_JOURNAL_REPLICAS", options.nats.to_string())
            .variable("STORMWIRE_ARCHIVE_URL", self.database_url.clone())
            .variable("STORMWIRE_LIMITS_URL", self.redis_url.clone())
            .variable("STORMWIRE_MANAGEMENT_LISTEN", local(&management));
        if let (Some(url), "gateway") = (&self.identity_url, kind) {
            launch = launch.variable("STORMWIRE_IDENTITY_URL", url.clone());
        }
        for (name, value) in &options.environment {
            launch = launch.variable(name, *value);
        }
        if let Some(listen) = &listen {
            launch = launch.variable("STORMWIRE_LISTEN", local(listen));
        }
        shell::progress(&format!("starting {name} ..."));
        let role = Role::start(name.clone(), launch, listen, management)
            .await
            .map_err(Failure::doing(name))?;
        self.members.push(Member::Role(Arc::new(role)));
        Ok(())
    }

    /// Starts one more worker.
    pub(crate) async fn add_worker(&mut self, options: &Options, program: &Path) -> Outcome {
        self.role(options, program, ("worker", 1), None).await
    }

    /// Ends the process that was started last.
    pub(crate) async fn remove_last(&mut self) {
        if let Some(member) = self.members.pop() {
            // A stopping process may take seconds; others go on meanwhile.
            let _ = tokio::task::spawn_blocking(move || member.stop()).await;
        }
    }

    /// The process id of a member.
    pub(crate) fn pid(&self, name: &str) -> Outcome<u32> {
        let member = self.members.iter().find(|member| member.name() == name);
        member.and_then(Member::pid).ok_or_else(|| Failure::of(format!("{name} does not run")))
    }

    /// A token with all rights.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Where the journal is.
    pub(crate) fn nats_url(&self) -> &str {
        &self.nats_url
    }

    /// Where the archive is.
    pub(crate) fn database_url(&self) -> &str {
        &self.database_url
    }

    /// Every process.
    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// The addresses of the gateways.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.roles()
            .filter(|role| role.name.starts_with("gateway"))
            .filter_map(|role| role.listen.as_ref())
            .map(|port| format!("http://127.0.0.1:{}", port.number()))
            .collect()
    }

    fn roles(&self) -> impl Iterator<Item = &Role> {
        self.members.iter().filter_map(|member| match member {
            Member::Role(role) => Some(role.as_ref()),
            _ => None,
        })
    }

    /// Each process by name and where its metrics are: `(gateway_1, 127.0.0.1:PORT)`.
    pub(crate) fn metrics(&self) -> Vec<(String, String)> {
        self.roles()
            .map(|role| (role.name.clone(), format!("127.0.0.1:{}", role.management.number())))
            .collect()
    }

    /// What `cluster.env` holds, `NAME=value` a line; no value needs quotes.
    pub(crate) fn environment(&self) -> String {
        let metrics: Vec<String> = self
            .metrics()
            .into_iter()
            .map(|(_, address)| format!("http://{address}/metrics"))
            .collect();
        let mut lines = vec![
            ("STORMWIRE_URLS".to_owned(), self.urls().join(",")),
            ("STORMWIRE_TOKEN".to_owned(), self.token.clone()),
            ("STORMWIRE_DATA_DIR".to_owned(), self.data_dir.display().to_string()),
            ("DATABASE_URL".to_owned(), self.database_url.clone()),
            ("NATS_URL".to_owned(), self.nats_url.clone()),
            ("REDIS_URL".to_owned(), self.redis_url.clone()),
            ("IDENTITY_URL".to_owned(), self.identity_url.clone().unwrap_or_default()),
            ("METRICS_URLS".to_owned(), metrics.join(",")),
        ];
        for member in &self.members {
            let pid = member.pid().map(|pid| pid.to_string()).unwrap_or_default();
            lines.push((format!("PID_{}", member.name()), pid));
        }
        lines.iter().fold(String::new(), |mut text, (name, value)| {
            let _ = writeln!(text, "{name}={value}");
            text
        })
    }

    /// Writes the file so that a reader sees the old or the new one, never half of one.
    pub(crate) fn write(&self, path: &Path) -> Outcome {
        let draft = path.with_extension("env.draft");
        std::fs::write(&draft, self.environment())
            .and_then(|()| std::fs::rename(&draft, path))
            .map_err(Failure::doing(path.display()))
    }

    /// For the person at the terminal.
    pub(crate) fn summary(&self) -> String {
        format!("\nthe cluster is ready\n\n{}", self.environment())
    }

    /// Ends gateways and workers first, side by side, so that they can finish their work, then the
    /// servers.
    pub(crate) async fn stop(&self) {
        for roles in [true, false] {
            let mut stopping = tokio::task::JoinSet::new();
            for member in &self.members {
                if matches!(member, Member::Role(_)) == roles {
                    let member = member.clone();
                    stopping.spawn_blocking(move || member.stop());
                }
            }
            while stopping.join_next().await.is_some() {}
        }
    }
}

/// A token with all rights, signed with the development key, which is made if it isn't there.
pub(crate) fn token(program: &Path, data_dir: &Path) -> Outcome<String> {
    let mut asked = Command::new(program);
    asked.args(["token", "--user", "developer", "--ttl", "720h"]);
    asked.args(["--publish", "*", "--subscribe", "*", "--data-dir"]).arg(data_dir);
    shell::read(&mut asked)
}

/// 8080 and on where they are free, another otherwise.
fn gateway_port(number: u16) -> std::io::Result<Port> {
    let wanted = GATEWAY_PORT + number - 1;
    match TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)) {
        Ok(_) => Ok(Port::fixed(wanted)),
        Err(_) => Port::reserve(),
    }
}
