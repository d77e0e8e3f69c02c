//! `cargo xtask keycloak`: the tests against a real Keycloak, which is too heavy for every run.

use crate::shell::{self, command};
use crate::{Failure, Outcome, tools};
use std::path::{Path, PathBuf};
use stormwire_testkit::workspace_root;

const VERSION: &str = "26.7.3";
/// Of the distribution as Maven's repository serves it.
const SHA256: &str = "27a6535553c3cdcd083872ba40629efafb3475e3b758e0c6f691395561dd0f1f";
/// The oldest Java that it starts with.
const JAVA_MIN: u32 = 17;

/// Installs the server and runs the tests that need it.
pub(crate) fn run() -> Outcome {
    tools::provide()?;
    java()?;
    let home = install()?;
    let arguments =
        ["test", "--locked", "-p", "stormwire", "--test", "e2e", "keycloak", "--", "--nocapture"];
    shell::run(command("cargo", &arguments).env("STORMWIRE_TEST_KEYCLOAK", home))
}

/// Makes sure of a Java.
fn java() -> Outcome {
    let known = || {
        let said = shell::read(&mut command("javac", &["--version"]))
            .or_else(|_| shell::read(&mut command("java", &["--version"])));
        said.ok().and_then(|said| java_version(&said)) >= Some(JAVA_MIN)
    };
    if known() || tools::debian_package("openjdk-17-jre-headless") && known() {
        return Ok(());
    }
    Err(Failure::of(
        "Keycloak needs Java 17 or newer, and it can't be installed without root and apt-get",
    ))
}

/// `openjdk 17.0.15 2025-04-15` or `javac 17.0.15`.
fn java_version(said: &str) -> Option<u32> {
    said.split_whitespace().nth(1)?.split('.').next()?.parse().ok()
}

/// The server's folder, below `target/tools`.
fn install() -> Outcome<PathBuf> {
    let tools = workspace_root().join("target/tools");
    let home = tools.join(format!("keycloak-{VERSION}"));
    if home.join("bin/kc.sh").is_file() {
        return Ok(home);
    }
    std::fs::create_dir_all(&tools).map_err(Failure::doing(tools.display()))?;
    let archive = tools.join("keycloak.zip");
    download(&tools, &archive)?;
    let sum = shell::read(command("sha256sum", &[] as &[&str]).arg(&archive))?;
    if sum.split_whitespace().next() != Some(SHA256) {
        let _ = std::fs::remove_file(&archive);
        return Err(Failure::of(format!(
            "Keycloak {VERSION} has the hash {sum}, expected {SHA256}"
        )));
    }
    // Beside its place first, so that half of it is never taken for all.
    let draft = tools.join("keycloak.unpacked");
    let _ = std::fs::remove_dir_all(&draft);
    let mut unpack = command("python3", &["-m", "zipfile", "-e"]);
    shell::run(unpack.arg(&archive).arg(&draft))?;
    let unpacked = draft.join(format!("keycloak-{VERSION}"));
    std::fs::rename(&unpacked, &home).map_err(Failure::doing(home.display()))?;
    let _ = std::fs::remove_dir_all(&draft);
    std::fs::remove_file(&archive).map_err(Failure::doing(archive.display()))?;
    Ok(home)
}

/// Fetches the distribution with Maven, into a repository of its own that is removed again.
fn download(tools: &Path, archive: &Path) -> Outcome {
    if !shell::answers("mvn", &["--version"]) && !tools::debian_package("maven") {
        return Err(Failure::of("Maven is not there to fetch Keycloak with: install it"));
    }
    shell::progress(&format!("fetching Keycloak {VERSION} ..."));
    let repository = tools.join("keycloak.maven");
    let artifact = format!("-Dartifact=org.keycloak:keycloak-quarkus-dist:{VERSION}:zip");
    let place = format!("-Dmaven.repo.local={}", repository.display());
    let get = ["-q", "-B", "dependency:get", "-Dtransitive=false", &artifact, &place];
    shell::run(&mut command("mvn", &get))?;
    let file =
        format!("org/keycloak/keycloak-quarkus-dist/{VERSION}/keycloak-quarkus-dist-{VERSION}.zip");
    let found = repository.join(file);
    std::fs::rename(&found, archive).map_err(Failure::doing(found.display()))?;
    let _ = std::fs::remove_dir_all(&repository);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_java_says_its_version() {
        assert_eq!(java_version("openjdk 17.0.15 2025-04-15\nOpenJDK Runtime"), Some(17));
        assert_eq!(java_version("javac 21"), Some(21));
        assert_eq!(java_version(""), None);
    }
}
