//! Streaming replicas: copied from a running server, kept up by it, promoted when it is gone.

use super::{PostgresServer, fill, in_container, other_user};
use crate::binaries::Program;
use crate::place::Folder;
use crate::ports::Port;
use crate::server::{StartError, locate};
use std::process::Command;

impl PostgresServer {
    /// A replica of this server in its present state, which follows it from then on.
    ///
    /// # Errors
    /// The programs are absent, this server can't be copied, or the copy does not answer.
    pub async fn try_replica(&self) -> Result<Self, StartError> {
        let program = locate(Program::Postgres)?;
        let copy = program.with_file_name("pg_basebackup");
        if in_container() || !copy.is_file() {
            return Err(StartError::Absent(Program::Postgres));
        }
        let folder = Folder::temporary("postgres-replica")?;
        let data = folder.path().join("data");
        let user = other_user(folder.path())?;
        let mut command = Command::new(copy);
        command
            .args(["-R", "-X", "stream", "-c", "fast", "--no-sync", "-U", "postgres"])
            .args(["-h", "127.0.0.1", "-p", &self.port.number().to_string(), "-D"])
            .arg(&data);
        let filled = tokio::task::spawn_blocking(move || fill(&data, user, command));
        filled.await.map_err(std::io::Error::other)??;
        Self::on(program, folder, Port::reserve()?, user, &[]).await
    }

    /// Makes a replica a server that takes writes; returns when it does.
    ///
    /// # Errors
    /// It is none, or does not become one within a minute.
    pub async fn promote(&self) -> Result<(), StartError> {
        self.execute("SELECT pg_promote(true, 60)").await
    }

    /// Stops showing what comes from the primary; it is still received and kept.
    ///
    /// # Errors
    /// It is no replica, or does not answer.
    pub async fn pause_replay(&self) -> Result<(), StartError> {
        self.execute("SELECT pg_wal_replay_pause()").await
    }

    /// Shows it again.
    ///
    /// # Errors
    /// It is no replica, or does not answer.
    pub async fn resume_replay(&self) -> Result<(), StartError> {
        self.execute("SELECT pg_wal_replay_resume()").await
    }
}

#[cfg(test)]
mod tests {
    use crate::postgres::Postgres;
    use crate::wait_until;
    use std::time::Duration;

    #[tokio::test]
    async fn a_replica_follows_and_takes_over() {
        let Some(primary) = Postgres::dedicated().await else { return };
        let Some(replica) = primary.replica().await else { return };
        let (primary, replica) = (primary.server(), replica.server());
        assert!(replica.create_database("early").await.is_err(), "it takes no writes");
        primary.create_database("later").await.unwrap();
        let there = "SELECT 1 / count(*) FROM pg_database WHERE datname = 'later'";
        wait_until("it follows", Duration::from_secs(20), || async {
            replica.execute(there).await.is_ok()
        })
        .await;
        primary.stop();
        replica.promote().await.unwrap();
        replica.create_database("last").await.unwrap();
    }
}
