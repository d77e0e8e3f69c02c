//! `cargo xtask up`: a whole cluster on this machine, to be tried, killed and measured.
//!
//! Three NATS nodes that write to disk before each acknowledgement, Postgres, Redis, an identity service,
//! gateways and workers, on free ports. Whatever dies comes back after two seconds on its port; Ctrl-C ends all.
//! `target/local/cluster.env` says where everything is: a shell can source it.

pub(crate) mod cluster;
pub(crate) mod member;

use crate::shell::{self, command};
use crate::{Failure, Outcome, tools};
use cluster::Cluster;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use stormwire_testkit::workspace_root;
use tokio::signal::unix::{SignalKind, signal};

/// How long a killed process stays away.
const RESPAWN_PAUSE: Duration = Duration::from_secs(2);
/// How often is looked whether all are alive.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// What to start.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// How many gateways
    #[arg(long, default_value_t = 2)]
    pub(crate) gateways: u16,
    /// How many workers
    #[arg(long, default_value_t = 2)]
    pub(crate) workers: u16,
    /// How many identity services; gateways forward sign-ins to the first
    #[arg(long, default_value_t = 1)]
    pub(crate) identities: u16,
    /// How many NATS nodes; streams have as many replicas
    #[arg(long, default_value_t = 3)]
    pub(crate) nats: u16,
    /// Let NATS write to disk every two minutes instead of before each acknowledgement
    #[arg(long)]
    pub(crate) no_sync: bool,
    /// Leave a killed process dead
    #[arg(long)]
    pub(crate) no_respawn: bool,
    /// Go on with the data of the last time instead of with none
    #[arg(long)]
    pub(crate) keep: bool,
    /// Build without optimising: ready sooner, slower then
    #[arg(long)]
    pub(crate) debug: bool,
    /// A `stormwire` that is built already, instead of building it
    #[arg(long)]
    pub(crate) program: Option<PathBuf>,
    /// Where the data, the logs and cluster.env go
    #[arg(long, default_value_os_t = workspace_root().join("target/local"))]
    pub(crate) folder: PathBuf,
    /// More variables for gateways and workers
    #[arg(skip)]
    pub(crate) environment: Vec<(&'static str, &'static str)>,
}

/// Starts the cluster and stays until it is told to end.
pub(crate) fn run(options: &Options) -> Outcome {
    tools::provide()?;
    let program = options.program.clone().map_or_else(|| build(options.debug), Ok)?;
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::doing("starting a runtime"))?;
    runtime.block_on(stay(options, &program))
}

/// Builds `stormwire` and returns where it is.
pub(crate) fn build(debug: bool) -> Outcome<PathBuf> {
    build_package("stormwire", debug)
}

/// Builds the executable of a package, which has its name, and returns where it is.
pub(crate) fn build_package(package: &str, debug: bool) -> Outcome<PathBuf> {
    let [path] = build_packages([package], debug)?;
    Ok(path)
}

/// Builds the executables of packages at once, so that what they share is built once.
pub(crate) fn build_packages<const N: usize>(
    packages: [&str; N],
    debug: bool,
) -> Outcome<[PathBuf; N]> {
    let profile = if debug { "dev" } else { "release" };
    shell::progress(&format!("building {} ({profile}) ...", packages.join(" and ")));
    let mut arguments = vec!["build", "--locked", "--profile", profile];
    for package in packages {
        arguments.extend(["--package", package]);
    }
    shell::run(&mut command("cargo", &arguments))?;
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(workspace_root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .map_err(Failure::doing("cargo metadata"))?;
    let folder = metadata.target_directory.join(if debug { "debug" } else { "release" });
    Ok(packages.map(|package| folder.join(package).into_std_path_buf()))
}

async fn stay(options: &Options, program: &Path) -> Outcome {
    let mut interrupted = signal(SignalKind::interrupt()).map_err(Failure::doing("Ctrl-C"))?;
    let mut terminated = signal(SignalKind::terminate()).map_err(Failure::doing("SIGTERM"))?;
    let env = options.folder.join("cluster.env");
    // Whoever waits for the file must not find that of another time.
    let _ = std::fs::remove_file(&env);
    let asked_to_end = async {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    };
    tokio::pin!(asked_to_end);
    let cluster = tokio::select! {
        started = Cluster::start(options, program) => Arc::new(started?),
        () = &mut asked_to_end => return Ok(()),
    };
    cluster.write(&env)?;
    println!("{}", cluster.summary());
    println!("\n{}: everything above, for scripts. Ctrl-C ends the cluster.", env.display());
    let mut watches = tokio::task::JoinSet::new();
    if !options.no_respawn {
        for index in 0..cluster.members().len() {
            watches.spawn(watch(Arc::clone(&cluster), index, env.clone()));
        }
    }
    asked_to_end.await;
    watches.shutdown().await;
    println!("ending ...");
    let _ = std::fs::remove_file(&env);
    cluster.stop().await;
    println!("all ended");
    Ok(())
}

/// Brings one process back whenever it dies.
async fn watch(cluster: Arc<Cluster>, index: usize, env: PathBuf) {
    let Some(member) = cluster.members().get(index) else { return };
    loop {
        tokio::time::sleep(LOOK_PAUSE).await;
        if member.is_running() {
            continue;
        }
        println!("{} has ended; it comes back in {RESPAWN_PAUSE:?}", member.name());
        tokio::time::sleep(RESPAWN_PAUSE).await;
        match member.restart().await.map_err(Failure::doing(member.name())) {
            Ok(()) => match cluster.write(&env) {
                Ok(()) => println!("{} is back", member.name()),
                Err(failure) => println!("error: {failure}"),
            },
            Err(failure) => println!("error: {failure}"),
        }
    }
}
