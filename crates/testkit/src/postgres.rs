//! PostgreSQL: one server for all tests of a process, a fresh database for each.
//!
//! The server refuses to run as root, so root starts it as `postgres` or `nobody`. It writes to disk
//! before it commits, as it does in production. `replica` makes streaming replicas of it,
//! `roles` roles of their own for the processes.

mod protocol;
mod replica;
mod roles;

use crate::binaries::Program;
use crate::place::Folder;
use crate::ports::Port;
use crate::server::{Launch, Server, StartError, locate};
use crate::started;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::OnceCell;

const SETTINGS: [&str; 6] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "max_connections=300",
    "shared_buffers=128MB",
    "max_wal_size=2GB",
    "timezone=UTC",
];

/// How a server is set up.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// Keep the data here instead of in a temporary folder.
    pub folder: Option<PathBuf>,
    /// A free port by default.
    pub port: Option<u16>,
    /// More settings, each `name=value`.
    pub settings: Vec<String>,
}

/// A database of its own, in the server that all tests of this process share or in one of its own.
#[derive(Debug, Clone)]
pub struct Postgres {
    server: Arc<PostgresServer>,
    database: String,
}

impl Postgres {
    /// A fresh database in the shared server, which must not be killed or paused; `None` where the
    /// program is absent.
    pub async fn start() -> Option<Self> {
        static SHARED: OnceCell<Arc<PostgresServer>> = OnceCell::const_new();
        let server = SHARED.get_or_try_init(|| async {
            PostgresServer::try_start(&PostgresOptions::default()).await.map(Arc::new)
        });
        let server = started(server.await.map(Arc::clone))?;
        started(Self::fresh(server).await)
    }

    /// A fresh database in a server of its own, for tests that kill it: see [`Self::server`].
    pub async fn dedicated() -> Option<Self> {
        let server = started(PostgresServer::try_start(&PostgresOptions::default()).await)?;
        started(Self::fresh(Arc::new(server)).await)
    }

    async fn fresh(server: Arc<PostgresServer>) -> Result<Self, StartError> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let database = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        server.create_database(&database).await?;
        Ok(Self { server, database })
    }

    /// A streaming replica of this server, which must be this test's own ([`Self::dedicated`]), with the
    /// same database. It shows what it has replayed and can be promoted; `None` where its programs are
    /// absent.
    pub async fn replica(&self) -> Option<Self> {
        let server = started(self.server.try_replica().await)?;
        Some(Self { server: Arc::new(server), database: self.database.clone() })
    }

    /// Where clients connect: `postgres://postgres@127.0.0.1:PORT/DATABASE`.
    pub fn url(&self) -> String {
        self.server.url(&self.database)
    }

    /// The server, to be killed, paused, resumed and restarted where it is this test's own.
    pub fn server(&self) -> &PostgresServer {
        &self.server
    }
}

/// One server on its own port.
#[derive(Debug)]
pub struct PostgresServer {
    server: Server,
    port: Port,
    _folder: Folder,
}

impl PostgresServer {
    /// One server set up as told; its data is made where the folder has none.
    ///
    /// # Errors
    /// The program is absent, its data can't be made, or the server does not answer.
    pub async fn try_start(options: &PostgresOptions) -> Result<Self, StartError> {
        let program = locate(Program::Postgres)?;
        let folder = match &options.folder {
            Some(path) => Folder::lasting(path)?,
            None => Folder::temporary("postgres")?,
        };
        let port = options.port.map_or_else(Port::reserve, |number| Ok(Port::fixed(number)))?;
        let data = folder.path().join("data");
        let user = other_user(folder.path())?;
        if !in_container() {
            make_data(&program.with_file_name("initdb"), &data, user)?;
        }
        Self::on(program, folder, port, user, &options.settings).await
    }

    /// Starts `program` on the data in `folder`.
    async fn on(
        program: PathBuf,
        folder: Folder,
        port: Port,
        user: Option<(u32, u32)>,
        settings: &[String],
    ) -> Result<Self, StartError> {
        let data = folder.path().join("data");
        let mut arguments = vec!["-D".to_owned(), data.display().to_string()];
        arguments.extend(["-p".to_owned(), port.number().to_string()]);
        for setting in SETTINGS.iter().map(|s| (*s).to_owned()).chain(settings.to_vec()) {
            arguments.extend(["-c".to_owned(), setting]);
        }
        let launch = Launch::new("postgres", program, folder.path())
            .arguments(arguments)
            .variable("PGDATA", data.display().to_string())
            .variable("POSTGRES_HOST_AUTH_METHOD", "trust");
        let server = Server::new(Launch {
            user,
            // Ends at once, and gives its shared memory back, which a kill does not.
            stop: libc::SIGQUIT,
            at_death: libc::SIGQUIT,
            image: Some("postgres:17"),
            ..launch
        });
        let postgres = Self { server, port, _folder: folder };
        postgres.launch().await?;
        Ok(postgres)
    }

    async fn launch(&self) -> Result<(), StartError> {
        let port = self.port.number();
        self.server
            .start(move || async move { protocol::execute(port, "SELECT 1").await.is_ok() })
            .await
    }

    /// Makes a database; one of that name that is there is an error.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn create_database(&self, name: &str) -> Result<(), StartError> {
        let create = format!("CREATE DATABASE \"{name}\" TEMPLATE template0");
        Ok(protocol::execute(self.port.number(), &create).await?)
    }

    /// Runs one statement as the superuser, in the database `postgres`.
    ///
    /// # Errors
    /// The server's refusal, or that it does not answer.
    pub async fn execute(&self, statement: &str) -> Result<(), StartError> {
        Ok(protocol::execute(self.port.number(), statement).await?)
    }

    /// Where clients of that database connect.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port.number())
    }

    /// Starts it again on the same port with the same data; kills it first if it runs.
    ///
    /// # Errors
    /// The server does not answer.
    pub async fn try_restart(&self) -> Result<(), StartError> {
        self.server.kill().await;
        // A killed server leaves this behind, and its number may by now be another process's.
        let _ = std::fs::remove_file(self.server.folder().join("data/postmaster.pid"));
        self.launch().await
    }

    /// The same; a server that does not answer fails the test.
    pub async fn restart(&self) {
        self.try_restart().await.expect("postgres answers again");
    }
}

impl std::ops::Deref for PostgresServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

/// Whom root starts the server as; `None` for anybody else.
fn other_user(folder: &Path) -> std::io::Result<Option<(u32, u32)>> {
    // What this process makes belongs to whom it runs as.
    let probe = folder.join(".owner");
    std::fs::write(&probe, "")?;
    if std::fs::metadata(&probe)?.uid() != 0 {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let ids = ["postgres", "nobody"].into_iter().find_map(|name| ids_of(&users, name));
    ids.map(Some).ok_or_else(|| std::io::Error::other("no user postgres or nobody to drop root to"))
}

fn ids_of(users: &str, name: &str) -> Option<(u32, u32)> {
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(feature = "containers")]
fn in_container() -> bool {
    crate::container::engine_answers()
}

#[cfg(not(feature = "containers"))]
const fn in_container() -> bool {
    false
}

fn make_data(initdb: &Path, data: &Path, user: Option<(u32, u32)>) -> std::io::Result<()> {
    if data.join("PG_VERSION").is_file() {
        return Ok(());
    }
    let mut command = Command::new(initdb);
    command
        .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
        .arg(data);
    fill(data, user, command)
}

/// Runs the program that fills the folder `data`, as the user to whom it will belong.
fn fill(data: &Path, user: Option<(u32, u32)>, mut command: Command) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data)?;
    if let Some((user, group)) = user {
        chown(data, Some(user), Some(group))?;
        command.uid(user).gid(group).current_dir(data);
    }
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let program = command.get_program().to_string_lossy().into_owned();
    Err(std::io::Error::other(format!("{program}: {complaint}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_the_list_of_users() {
        let users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65533:nobody:/:/bin/false\n";
        assert_eq!(ids_of(users, "nobody"), Some((65534, 65533)));
        assert_eq!(ids_of(users, "body"), None);
    }

    #[tokio::test]
    async fn two_tests_have_two_databases_in_one_server() {
        let Some(one) = Postgres::start().await else { return };
        let Some(two) = Postgres::start().await else { return };
        assert_eq!(one.server().pid(), two.server().pid());
        assert_ne!(one.url(), two.url());
        let again = one.server().create_database(&one.database).await.unwrap_err();
        assert!(again.to_string().contains("already exists"), "{again}");
    }

    #[tokio::test]
    async fn a_killed_server_keeps_its_databases() {
        let Some(postgres) = Postgres::dedicated().await else { return };
        let server = postgres.server();
        server.pause().await;
        server.kill().await;
        assert!(protocol::execute(server.port.number(), "SELECT 1").await.is_err());
        server.restart().await;
        assert!(server.create_database(&postgres.database).await.is_err(), "it is there already");
    }
}
