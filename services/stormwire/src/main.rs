//! The one executable: every service is a role of it, every tool a command.
//!
//! `cli` says what can be asked, `config` what can be set, `roles` puts servers together, `commands`
//! holds the tools. Nothing here decides about events.

mod app;
mod cli;
mod commands;
mod config;
mod connect;
mod failure;
mod output;
mod roles;

use clap::Parser as _;
use cli::{Cli, Command};
use config::{Config, Sources};
use failure::Failure;
use std::io::Write as _;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { failure::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(Box::pin(run(cli))),
        Err(error) => Err(Failure::failed(format!("the runtime cannot start: {error}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            warn(&failure);
            failure.code.into()
        }
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    #[cfg(feature = "faults")]
    choose_fault()?;
    let sources = sources(&cli)?;
    if let Some(Command::Config { markdown }) = cli.command {
        return commands::settings::run(markdown, &sources);
    }
    let config = Config::read(&sources).map_err(Failure::usage)?;
    match cli.command {
        None => roles::embedded(&config).await,
        Some(Command::Gateway) => roles::gateway(&config).await,
        Some(Command::Messages) => roles::messages(&config).await,
        Some(Command::Identity { command: None }) => roles::identity(&config).await,
        Some(Command::Identity { command: Some(command) }) => {
            commands::identity::run(command, &config).await
        }
        Some(Command::Admin { command, url, token }) => {
            let connect = cli::ConnectArgs { url, token, ca: None };
            commands::admin::run(&command, &connect, &config).await
        }
        Some(Command::Migrate { accounts }) => commands::migrate::run(accounts, &config).await,
        Some(Command::Token(args)) => commands::token::run(args, &config),
        Some(Command::Publish(args)) => commands::publish::run(args, &config).await,
        Some(Command::Subscribe(args)) => commands::subscribe::run(args, &config).await,
        Some(Command::Latest(args)) => commands::latest::run(args, &config).await,
        Some(Command::Presence(args)) => commands::presence::run(args, &config).await,
        Some(Command::Signal(args)) => commands::signal::run(args, &config).await,
        Some(Command::Replay(args)) => commands::replay::run(args, &config).await,
        Some(Command::Doctor(args)) => commands::doctor::run(args, &config).await,
        Some(Command::DeadLetters(command)) => commands::dead_letters::run(command, &config).await,
        Some(Command::Journal(command)) => commands::journal::run(command, &config).await,
        Some(Command::Backup(args)) => commands::backup::run(args, &config).await,
        Some(Command::Restore(args)) => commands::restore::run(args, &config).await,
        Some(Command::Verify(args)) => commands::verify::run(args, &config).await,
        Some(Command::Trace(args)) => commands::trace::run(args, &config).await,
        Some(Command::Canary(args)) => commands::canary::run(args, &config).await,
        Some(Command::Config { .. }) => Ok(()),
    }
}

/// Switches off the safety rule that `STORMWIRE_FAULT` names.
#[cfg(feature = "faults")]
fn choose_fault() -> Result<(), Failure> {
    use stormwire_core::faults::{Fault, inject};
    let Ok(name) = std::env::var("STORMWIRE_FAULT") else { return Ok(()) };
    let Some(fault) = Fault::parse(&name) else {
        let known = Fault::ALL.map(Fault::name).join(", ");
        return Err(Failure::usage(format!("STORMWIRE_FAULT: {name} is none of {known}")));
    };
    warn(format!("this process runs with the fault {name}: nothing that it says can be trusted"));
    inject(fault);
    Ok(())
}

/// The layers of the configuration, from where they really are.
fn sources(cli: &Cli) -> Result<Sources, Failure> {
    let (path, named) = match &cli.settings.config {
        Some(path) => (path.clone(), true),
        None => ("stormwire.toml".into(), false),
    };
    let shown = path.display().to_string();
    let file = match std::fs::read_to_string(&path) {
        Ok(text) => Some((shown, text)),
        Err(error) if !named && error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(Failure::usage(format!(
                "the configuration {shown} cannot be read: {error}"
            )));
        }
    };
    let flags = cli.settings.fields().map_err(Failure::usage)?;
    // What is not text cannot be a field's.
    let environment = std::env::vars_os()
        .filter_map(|(name, text)| Some((name.into_string().ok()?, text.into_string().ok()?)))
        .collect();
    Ok(Sources { file, environment, flags })
}

/// Says something on standard error, line by line.
pub(crate) fn warn(message: impl std::fmt::Display) {
    let mut out = std::io::stderr().lock();
    for line in message.to_string().lines() {
        let _ = writeln!(out, "stormwire: {line}");
    }
}
