//! redis-server, without persistence: what the limiter keeps there may be lost.

use crate::binaries::Program;
use crate::place::Folder;
use crate::ports::Port;
use crate::server::{Launch, Server, StartError, locate};
use crate::started;
use std::ops::Deref;
use std::path::PathBuf;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How a server is set up.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// Work and log here instead of in a temporary folder.
    pub folder: Option<PathBuf>,
    /// A free port by default.
    pub port: Option<u16>,
}

/// One redis-server on its own port. [`Server`]'s methods are its methods.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    port: Port,
    _folder: Folder,
}

impl Redis {
    /// One server; `None` where the program is absent.
    pub async fn start() -> Option<Self> {
        started(Self::try_start(&RedisOptions::default()).await)
    }

    /// One server set up as told.
    ///
    /// # Errors
    /// The program is absent, or the server does not answer.
    pub async fn try_start(options: &RedisOptions) -> Result<Self, StartError> {
        let program = locate(Program::Redis)?;
        let folder = match &options.folder {
            Some(path) => Folder::lasting(path)?,
            None => Folder::temporary("redis")?,
        };
        let port = options.port.map_or_else(Port::reserve, |number| Ok(Port::fixed(number)))?;
        let number = port.number().to_string();
        let path = folder.path().display().to_string();
        let arguments = [
            "--port",
            &number,
            "--bind",
            "127.0.0.1",
            "--dir",
            &path,
            "--save",
            "",
            "--appendonly",
            "no",
            "--daemonize",
            "no",
        ];
        let launch = Launch::new("redis", program, folder.path()).arguments(arguments);
        let server =
            Server::new(Launch { stop: libc::SIGKILL, image: Some("redis:7.4"), ..launch });
        let redis = Self { server, port, _folder: folder };
        redis.launch().await?;
        Ok(redis)
    }

    async fn launch(&self) -> Result<(), StartError> {
        let port = self.port.number();
        self.server.start(move || pongs(port)).await
    }

    /// Where clients connect: `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port.number())
    }

    /// Starts it again on the same port, empty; kills it first if it runs.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn try_restart(&self) -> Result<(), StartError> {
        self.server.kill().await;
        self.launch().await
    }

    /// The same; a server that does not answer fails the test.
    pub async fn restart(&self) {
        self.try_restart().await.expect("redis-server answers again");
    }
}

impl Deref for Redis {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

async fn pongs(port: u16) -> bool {
    let Ok(mut socket) = TcpStream::connect(("127.0.0.1", port)).await else { return false };
    let mut answer = [0; 7];
    socket.write_all(b"PING\r\n").await.is_ok()
        && socket.read_exact(&mut answer).await.is_ok()
        && &answer == b"+PONG\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_paused_server_is_silent_and_a_resumed_one_answers() {
        let Some(redis) = Redis::start().await else { return };
        let port = redis.port.number();
        redis.pause().await;
        assert!(tokio::time::timeout(Duration::from_millis(200), pongs(port)).await.is_err());
        redis.resume().await;
        assert!(pongs(port).await);
        redis.restart().await;
        assert!(redis.url().ends_with(&port.to_string()));
    }
}
