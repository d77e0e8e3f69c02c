//! Other servers under the same load: a writer that does nothing else, nats-server's WebSocket listener,
//! and Socket.IO where npm is there. None of them keeps what it is given.

use super::rig::{Call, Rig};
use crate::shell::{self, command};
use crate::{Failure, Outcome};
use std::path::Path;
use stormwire_testkit::{Launch, Port, Program, Server, http_ok, workspace_root};

pub(super) const WRITER: &str = "minimal writer";
const SOCKET_IO: &str = "Socket.IO";
const NATS: &str = "nats-server";

/// One of them, running.
pub(super) struct Peer {
    pub(super) name: &'static str,
    dialect: &'static str,
    server: Server,
    port: Port,
}

/// All that can be had here.
pub(super) struct Peers(Vec<Peer>);

impl Peers {
    /// Starts them; they end when this is dropped.
    pub(super) async fn start(rig: &Rig) -> Outcome<Self> {
        let folder = rig.folder().join("peers");
        std::fs::create_dir_all(&folder).map_err(Failure::doing(folder.display()))?;
        let mut peers = vec![writer(rig, &folder).await?, nats(&folder).await?];
        // A quick run asks whether ours works, and needs no registry for that.
        if !rig.quick {
            match socket_io(&folder).await {
                Ok(peer) => peers.push(peer),
                Err(failure) => shell::progress(&format!("without Socket.IO: {failure}")),
            }
        }
        Ok(Self(peers))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Peer> {
        self.0.iter()
    }
}

impl Peer {
    /// Adds the arguments that lead to it.
    pub(super) fn toward(&self, call: Call) -> Outcome<Call> {
        let pid = self.server.pid().ok_or_else(|| Failure::of(format!("{} ended", self.name)))?;
        Ok(call
            .with("--dialect", self.dialect)
            .with("--address", format!("127.0.0.1:{}", self.port.number()))
            .with("--watch", format!("server={pid}")))
    }
}

async fn writer(rig: &Rig, folder: &Path) -> Outcome<Peer> {
    let port = Port::reserve().map_err(Failure::doing("a port"))?;
    let listen = format!("127.0.0.1:{}", port.number());
    let launch =
        Launch::new("writer", &rig.load, folder).arguments(["writer", "--listen", &*listen]);
    let server = Server::new(launch);
    let address = listen.clone();
    let answers = move || {
        let address = address.clone();
        async move { tokio::net::TcpStream::connect(address).await.is_ok() }
    };
    server.start(answers).await.map_err(Failure::doing(WRITER))?;
    Ok(Peer { name: WRITER, dialect: "stormwire", server, port })
}

async fn nats(folder: &Path) -> Outcome<Peer> {
    let (port, plain, monitor) = (reserve()?, reserve()?, reserve()?);
    let configuration = folder.join("nats-websocket.conf");
    let text = format!(
        "listen: 127.0.0.1:{}\nhttp: 127.0.0.1:{}\nmax_connections: 100000\nmax_pending: 256MB\n\
         websocket {{ listen: \"127.0.0.1:{}\", no_tls: true }}\n",
        plain.number(),
        monitor.number(),
        port.number()
    );
    std::fs::write(&configuration, text).map_err(Failure::doing(configuration.display()))?;
    let program = Program::Nats.find().ok_or_else(|| Failure::of("nats-server is not there"))?;
    let launch = Launch::new("nats-websocket", program, folder)
        .arguments(["--config".to_owned(), configuration.display().to_string()]);
    let server = Server::new(launch);
    let ready = monitor.number();
    server.start(move || http_ok(ready, "/healthz")).await.map_err(Failure::doing(NATS))?;
    Ok(Peer { name: NATS, dialect: "nats", server, port })
}

/// Installed from `load/peers/socket-io`, whose lock file pins every package by its hash.
async fn socket_io(folder: &Path) -> Outcome<Peer> {
    let source = workspace_root().join("load/peers/socket-io");
    let installed = workspace_root().join("target/tools/socket-io");
    if !installed.join("node_modules/socket.io").exists() {
        std::fs::create_dir_all(&installed).map_err(Failure::doing(installed.display()))?;
        for name in ["package.json", "package-lock.json"] {
            std::fs::copy(source.join(name), installed.join(name)).map_err(Failure::doing(name))?;
        }
        let mut npm = command("npm", &["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
        shell::read(npm.current_dir(&installed))?;
    }
    let port = reserve()?;
    let program = source.join("server.mjs");
    let launch = Launch::new("socket-io", "node", folder)
        .arguments([program.display().to_string(), port.number().to_string()])
        .variable("SOCKET_IO", installed.join("node_modules").display().to_string());
    let server = Server::new(launch);
    let ready = port.number();
    server.start(move || http_ok(ready, "/ready")).await.map_err(Failure::doing(SOCKET_IO))?;
    Ok(Peer { name: SOCKET_IO, dialect: "socket-io", server, port })
}

fn reserve() -> Outcome<Port> {
    Port::reserve().map_err(Failure::doing("a port"))
}
