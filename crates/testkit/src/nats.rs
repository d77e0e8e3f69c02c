//! nats-server with JetStream: one, or a cluster of them.

use crate::binaries::Program;
use crate::place::Folder;
use crate::ports::Port;
use crate::proxy::Proxy;
use crate::server::{Launch, Server, StartError, locate};
use crate::{started, wait_until};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// How long an election of a cluster's leader may take on a busy machine.
const CLUSTER_DEADLINE: Duration = Duration::from_secs(60);

/// How a server or a cluster is set up.
#[derive(Debug, Clone, Default)]
pub struct NatsOptions {
    /// Write to disk before each acknowledgement (`sync_interval: always`).
    pub sync_always: bool,
    /// Keep the data here instead of in a temporary folder; a cluster makes one folder a node in it.
    pub folder: Option<PathBuf>,
    /// The client port of the first node; the next have the next. Free ones by default.
    pub port: Option<u16>,
    /// Put a proxy on each way from a node to another, so that nodes can be parted from each other.
    pub proxied_routes: bool,
}

/// One nats-server on its own ports. [`Server`]'s methods are its methods.
#[derive(Debug)]
pub struct NatsServer {
    server: Server,
    ports: NodePorts,
    alone: bool,
    /// The proxies before the other nodes, where routes are proxied.
    routes: Vec<Arc<Proxy>>,
    _folder: Folder,
}

#[derive(Debug)]
struct NodePorts {
    client: Port,
    monitor: Port,
    route: Port,
}

impl NodePorts {
    /// Three ports; fixed ones lie 100 apart, so that neighbours can be numbered on.
    fn new(first: Option<u16>, index: u16) -> std::io::Result<Self> {
        let port = |offset: u16| match first {
            Some(first) => Ok(Port::fixed(first + index + offset)),
            None => Port::reserve(),
        };
        Ok(Self { client: port(0)?, monitor: port(100)?, route: port(200)? })
    }
}

impl NatsServer {
    /// One server with its data in a temporary folder; `None` where the program is absent.
    pub async fn start() -> Option<Self> {
        started(Self::try_start(&NatsOptions::default()).await)
    }

    /// One server set up as told.
    ///
    /// # Errors
    /// The program is absent, or the server does not answer.
    pub async fn try_start(options: &NatsOptions) -> Result<Self, StartError> {
        let node = Self::prepare(options, "nats", NodePorts::new(options.port, 0)?, None)?;
        node.launch().await?;
        Ok(node)
    }

    fn prepare(
        options: &NatsOptions,
        name: &str,
        ports: NodePorts,
        routes: Option<&[String]>,
    ) -> Result<Self, StartError> {
        let program = locate(Program::Nats)?;
        let folder = match &options.folder {
            Some(path) => Folder::lasting(path.join(name))?,
            None => Folder::temporary(name)?,
        };
        let file = folder.path().join("nats.conf");
        std::fs::write(&file, configuration(options, name, &folder, &ports, routes))?;
        let launch = Launch::new(name, program, folder.path());
        let server = Server::new(Launch {
            stop: libc::SIGKILL,
            image: Some("nats:2.15.1"),
            ..launch.arguments(["--config".to_owned(), file.display().to_string()])
        });
        Ok(Self { server, ports, alone: routes.is_none(), routes: Vec::new(), _folder: folder })
    }

    /// A node of a cluster answers before the cluster has a leader; one alone when JetStream is up.
    async fn launch(&self) -> Result<(), StartError> {
        let (client, monitor) = (self.ports.client.number(), self.ports.monitor.number());
        if self.alone {
            self.server.start(move || is_healthy(monitor)).await
        } else {
            self.server.start(move || greets(client)).await
        }
    }

    /// Where clients connect: `nats://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.ports.client.number())
    }

    /// Where its monitoring endpoints are: `http://127.0.0.1:PORT`.
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.monitor.number())
    }

    /// The proxies on its ways to the other nodes; none unless [`NatsOptions::proxied_routes`] was set.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Proxy>> {
        self.routes.iter()
    }

    /// Whether JetStream says that it is up and up to date.
    pub async fn is_healthy(&self) -> bool {
        is_healthy(self.ports.monitor.number()).await
    }

    /// Starts it again on the same ports with the same data; kills it first if it runs.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn try_restart(&self) -> Result<(), StartError> {
        self.server.kill().await;
        self.launch().await
    }

    /// The same; a server that does not answer fails the test.
    pub async fn restart(&self) {
        self.try_restart().await.expect("nats-server answers again");
    }
}

impl Deref for NatsServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// Several servers that replicate each other's streams.
#[derive(Debug)]
pub struct NatsCluster {
    nodes: Vec<NatsServer>,
}

impl NatsCluster {
    /// `nodes` servers that write to disk before each acknowledgement, with a leader elected; `None`
    /// where the program is absent.
    pub async fn start(nodes: u16) -> Option<Self> {
        let options = NatsOptions { sync_always: true, ..NatsOptions::default() };
        started(Self::try_start(nodes, &options).await)
    }

    /// A cluster set up as told.
    ///
    /// # Errors
    /// The program is absent, a server does not answer, or no leader is elected.
    pub async fn try_start(nodes: u16, options: &NatsOptions) -> Result<Self, StartError> {
        let ports: Vec<NodePorts> = (0..nodes)
            .map(|index| NodePorts::new(options.port, index))
            .collect::<Result<_, _>>()?;
        let routes: Vec<SocketAddr> =
            ports.iter().map(|p| SocketAddr::from(([127, 0, 0, 1], p.route.number()))).collect();
        let mut cluster = Self { nodes: Vec::new() };
        for (index, ports) in ports.into_iter().enumerate() {
            let name = format!("nats-{}", index + 1);
            let (proxies, routes) = ways(&routes, index, options.proxied_routes).await?;
            // A cluster of one would wait for others for ever.
            let routes = (nodes > 1).then_some(routes.as_slice());
            let mut node = NatsServer::prepare(options, &name, ports, routes)?;
            node.routes = proxies;
            node.launch().await?;
            cluster.nodes.push(node);
        }
        for node in &cluster.nodes {
            let port = node.ports.monitor.number();
            let healthy = crate::wait::poll(CLUSTER_DEADLINE, || async move {
                is_healthy(port).await.then_some(())
            });
            if healthy.await.is_none() {
                return Err(StartError::Silent {
                    name: "the cluster's leader".to_owned(),
                    log: node.log_tail(),
                });
            }
        }
        Ok(cluster)
    }

    /// Waits until every node says that it is up to date; fails the test after a minute.
    pub async fn wait_healthy(&self) {
        for node in &self.nodes {
            wait_until("a node is up to date", CLUSTER_DEADLINE, || node.is_healthy()).await;
        }
    }

    /// Where clients connect, comma-separated.
    pub fn url(&self) -> String {
        self.urls().join(",")
    }

    /// Where clients connect, one URL a node.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(NatsServer::url).collect()
    }

    /// The nodes; each can be killed, paused, resumed and restarted. Node `i` is named `nats-{i+1}`.
    pub fn nodes(&self) -> &[NatsServer] {
        &self.nodes
    }

    /// The proxies on all ways from and to the node of that index.
    pub fn routes_of(&self, index: usize) -> Vec<Arc<Proxy>> {
        let target = self.nodes.get(index).map(|node| node.ports.route.number());
        let ways = self.nodes.iter().enumerate().flat_map(|(from, node)| {
            node.routes().filter(move |way| from == index || Some(way.target().port()) == target)
        });
        ways.map(Arc::clone).collect()
    }

    /// The nodes, to be kept apart from each other.
    pub fn into_nodes(self) -> Vec<NatsServer> {
        self.nodes
    }

    /// The node of that server name, for instance that of a stream's leader.
    pub fn node_named(&self, name: &str) -> Option<&NatsServer> {
        let index: usize = name.strip_prefix("nats-")?.parse().ok()?;
        self.nodes.get(index.checked_sub(1)?)
    }
}

/// What the node of that index dials: the others themselves, or a proxy of its own before each.
async fn ways(
    routes: &[SocketAddr],
    index: usize,
    proxied: bool,
) -> std::io::Result<(Vec<Arc<Proxy>>, Vec<String>)> {
    let url = |address: &SocketAddr| format!("nats://{address}");
    if !proxied {
        return Ok((Vec::new(), routes.iter().map(url).collect()));
    }
    let mut proxies = Vec::new();
    for (_, route) in routes.iter().enumerate().filter(|(other, _)| *other != index) {
        proxies.push(Arc::new(Proxy::start(*route).await?));
    }
    let urls = proxies.iter().map(|proxy| url(&proxy.address())).collect();
    Ok((proxies, urls))
}

fn configuration(
    options: &NatsOptions,
    name: &str,
    folder: &Folder,
    ports: &NodePorts,
    routes: Option<&[String]>,
) -> String {
    let sync = if options.sync_always { "always" } else { "2m" };
    let mut text = format!(
        "server_name: {name}\nlisten: \"127.0.0.1:{}\"\nhttp: \"127.0.0.1:{}\"\n\
         jetstream {{\n  store_dir: \"{}\"\n  sync_interval: \"{sync}\"\n  max_file_store: 1TB\n}}\n",
        ports.client.number(),
        ports.monitor.number(),
        folder.path().join("data").display(),
    );
    if let Some(routes) = routes {
        let _ = write!(
            text,
            "cluster {{\n  name: storm\n  listen: \"127.0.0.1:{}\"\n  routes: {routes:?}\n",
            ports.route.number()
        );
        if options.proxied_routes {
            // Clients and nodes would learn of ways past the proxies; nobody listens on this one.
            text.push_str("  no_advertise: true\n  advertise: \"127.0.0.1:1\"\n");
        }
        text.push_str("}\n");
    }
    text
}

async fn greets(port: u16) -> bool {
    let mut greeting = [0; 5];
    match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(mut socket) => socket.read_exact(&mut greeting).await.is_ok() && &greeting == b"INFO ",
        Err(_) => false,
    }
}

async fn is_healthy(port: u16) -> bool {
    crate::http_ok(port, "/healthz").await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Network;

    #[tokio::test]
    async fn a_killed_server_comes_back_on_the_same_port() {
        let Some(nats) = NatsServer::start().await else { return };
        let port = nats.ports.client.number();
        assert!(greets(port).await);
        assert_eq!(nats.url(), format!("nats://127.0.0.1:{port}"));
        assert!(nats.monitor_url().starts_with("http://127.0.0.1:"));
        let first = nats.pid();
        nats.kill().await;
        assert!(!greets(port).await);
        assert!(!nats.is_running());
        nats.restart().await;
        assert!(nats.is_healthy().await);
        assert_ne!(nats.pid(), first);
    }

    #[tokio::test]
    async fn a_cluster_of_one_is_a_server_alone() {
        let options = NatsOptions::default();
        let Some(cluster) = started(NatsCluster::try_start(1, &options).await) else { return };
        assert!(cluster.nodes()[0].is_healthy().await);
    }

    #[tokio::test]
    async fn a_node_that_is_parted_from_the_others_says_so_and_comes_back() {
        let options =
            NatsOptions { sync_always: true, proxied_routes: true, ..NatsOptions::default() };
        let Some(cluster) = started(NatsCluster::try_start(3, &options).await) else { return };
        let (node, ways) = (&cluster.nodes()[1], cluster.routes_of(1));
        assert_eq!(ways.len(), 4);
        ways.iter().for_each(|way| way.set(Network::Cut));
        wait_until("the node is alone", CLUSTER_DEADLINE, || async { !node.is_healthy().await })
            .await;
        assert!(cluster.nodes()[0].is_healthy().await, "two are enough");
        assert!(ways.iter().any(|way| way.spoilt() > 0));
        ways.iter().for_each(|way| way.set(Network::Healthy));
        cluster.wait_healthy().await;
    }

    #[tokio::test]
    async fn a_cluster_outlives_one_node_and_takes_it_back() {
        let Some(cluster) = NatsCluster::start(3).await else { return };
        assert_eq!(cluster.url(), cluster.urls().join(","));
        assert!(cluster.node_named("nats-4").is_none() && cluster.node_named("nats-0").is_none());
        let node = cluster.node_named("nats-2").unwrap();
        node.kill().await;
        assert!(greets(cluster.nodes()[0].ports.client.number()).await);
        node.restart().await;
        cluster.wait_healthy().await;
    }
}
