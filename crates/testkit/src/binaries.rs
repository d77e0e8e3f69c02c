//! Where the real servers' programs are. `cargo xtask tools` puts them there; tests only look.
//!
//! A variable names a program outright; otherwise `target/tools` of this checkout comes first, then
//! the places where Debian and the search path have it.

use std::path::{Path, PathBuf};

/// The version that tests and local clusters run: durable and fast with three replicas since 2.15.
pub const NATS_VERSION: &str = "2.15.1";

/// One of the servers that Stormwire depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The journal's server; `STORMWIRE_NATS_SERVER` names its executable.
    Nats,
    /// The archive's server; `STORMWIRE_POSTGRES_BIN` names the folder with `initdb` and `postgres`.
    Postgres,
    /// The limiter's server; `STORMWIRE_REDIS_SERVER` names its executable.
    Redis,
}

impl Program {
    /// The name of the executable that serves.
    pub fn executable(self) -> &'static str {
        match self {
            Self::Nats => "nats-server",
            Self::Postgres => "postgres",
            Self::Redis => "redis-server",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::Nats => "STORMWIRE_NATS_SERVER",
            Self::Postgres => "STORMWIRE_POSTGRES_BIN",
            Self::Redis => "STORMWIRE_REDIS_SERVER",
        }
    }

    /// The executable, or `None` where this machine has none.
    pub fn find(self) -> Option<PathBuf> {
        if let Some(named) = std::env::var_os(self.variable()).map(PathBuf::from) {
            let program =
                if self == Self::Postgres { named.join(self.executable()) } else { named };
            return program.is_file().then_some(program);
        }
        self.folders().into_iter().map(|folder| folder.join(self.executable())).find(|program| {
            program.is_file()
                && (self != Self::Postgres || program.with_file_name("initdb").is_file())
        })
    }

    fn folders(self) -> Vec<PathBuf> {
        let mut folders = vec![self.folder().join("bin")];
        if self == Self::Postgres {
            folders.extend(debian_postgres());
        }
        folders.extend(std::env::var_os("PATH").iter().flat_map(|path| {
            std::env::split_paths(path).filter(|f| f.is_absolute()).collect::<Vec<_>>()
        }));
        folders
    }

    /// The folder below `target/tools` that belongs to this server.
    pub fn folder(self) -> PathBuf {
        let name = match self {
            Self::Nats => format!("nats-{NATS_VERSION}"),
            Self::Postgres => "postgres".to_owned(),
            Self::Redis => "redis".to_owned(),
        };
        workspace_root().join("target/tools").join(name)
    }
}

/// The `bin` folders of Debian's packages, newest version first.
fn debian_postgres() -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    versions.into_iter().map(|(_, folder)| folder).collect()
}

/// The library that moves a process's wall clock, where Debian's package puts it; `None` without that.
pub fn faketime() -> Option<PathBuf> {
    let systems = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let libraries = systems.map(|system| system.path().join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.is_file())
}

/// The folder that holds the workspace's `Cargo.toml`.
pub fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_folder_with_the_lock_file() {
        assert!(workspace_root().join("Cargo.lock").is_file());
    }

    #[test]
    fn postgres_is_found_only_together_with_initdb() {
        if let Some(postgres) = Program::Postgres.find() {
            assert!(postgres.with_file_name("initdb").is_file());
        }
    }
}
