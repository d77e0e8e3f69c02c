//! Roles of their own for the processes, made by the script that operators run.

use super::{Postgres, in_container};
use crate::binaries::{Program, workspace_root};
use crate::server::{StartError, locate};
use crate::started;
use std::process::Stdio;
use tokio::process::Command;
use tokio::sync::Mutex;

/// What every role signs in with that [`Postgres::with_roles`] made.
const PASSWORD: &str = "a-password-for-tests";
const PURPOSES: [&str; 5] = ["owner", "gateway", "messages", "identity", "backup"];

impl Postgres {
    /// This database after `deploy/postgres/roles.sql`; `None` where `psql` is absent.
    pub async fn with_roles(self) -> Option<Self> {
        started(self.make_roles(&self.url()).await)?;
        Some(self)
    }

    /// Runs `deploy/postgres/roles.sql` as whom `url` says.
    ///
    /// # Errors
    /// `psql` is absent, or what it says is wrong.
    pub async fn make_roles(&self, url: &str) -> Result<(), StartError> {
        /// Roles belong to the whole server, and of two who change one at a time Postgres refuses one.
        static ONE: Mutex<()> = Mutex::const_new(());
        let _turn = ONE.lock().await;
        let script = workspace_root().join("deploy/postgres/roles.sql").display().to_string();
        let passwords =
            PURPOSES.iter().flat_map(|who| ["-v".to_owned(), format!("{who}_password={PASSWORD}")]);
        let arguments: Vec<String> = passwords.chain(["-f".to_owned(), script]).collect();
        self.psql(url, &arguments).await.map(drop)
    }

    /// Where `stormwire_<login>` connects, as in `gateway_a`.
    pub fn url_as(&self, login: &str) -> String {
        let as_role = format!("postgres://stormwire_{login}:{PASSWORD}@");
        self.url().replacen("postgres://postgres@", &as_role, 1)
    }

    /// What `psql` writes that is told `arguments`, as whom `url` says.
    ///
    /// # Errors
    /// The program is absent, or what it says is wrong.
    pub async fn psql(&self, url: &str, arguments: &[String]) -> Result<String, StartError> {
        let program = locate(Program::Postgres)?.with_file_name("psql");
        if in_container() || !program.is_file() {
            return Err(StartError::Absent(Program::Postgres));
        }
        let mut psql = Command::new(program);
        psql.args(["--no-psqlrc", "--no-password", "--tuples-only", "--no-align", "--dbname", url]);
        let said = psql.args(arguments).stdin(Stdio::null()).output().await?;
        if said.status.success() {
            return Ok(String::from_utf8_lossy(&said.stdout).into_owned());
        }
        Err(std::io::Error::other(String::from_utf8_lossy(&said.stderr).into_owned()).into())
    }
}
