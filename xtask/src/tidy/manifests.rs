//! Rules on the manifests: the order of layers, who may use which dependency, what members inherit.

use super::Complaints;
use crate::{Failure, Outcome};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use stormwire_testkit::workspace_root;
use toml::{Table, Value};

/// Only these packages may name the dependency, in production code; tests may wherever they need to.
const OWNERS: [(&str, &[&str]); 7] = [
    ("async-nats", &["stormwire-journal-nats", "stormwire-load"]),
    ("fred", &["stormwire-redis"]),
    ("jsonwebtoken", &["stormwire-tokens", "stormwire-identity"]),
    (
        "sqlx",
        &[
            "stormwire-sql",
            "stormwire-embedded",
            "stormwire-archive-postgres",
            "stormwire-identity",
            "stormwire-load",
            // The archive is dumped past the product's own code.
            "stormwire-chaos",
        ],
    ),
    // The client speaks with it, the gateway forms and reads its frames.
    (
        "tokio-tungstenite",
        &["stormwire-client", "stormwire-gateway", "stormwire-load", "stormwire-chaos"],
    ),
    ("axum", &["stormwire-web", "stormwire-gateway", "stormwire-identity", "stormwire"]),
    ("governor", &["stormwire-limits"]),
];

/// The crates without IO may use these and their own kind, and no others.
const PURE: [(&str, &[&str]); 2] = [
    ("stormwire-core", &["bytes", "serde", "thiserror", "uuid", "time"]),
    (
        "stormwire-wire",
        &[
            "bytes",
            "serde",
            "thiserror",
            "uuid",
            "time",
            "serde_json",
            "memchr",
            "prost",
            "base64",
            "itoa",
            "hashbrown",
        ],
    ),
];

/// One TLS and one runtime: these must not come in, however deep.
const BANNED: [&str; 5] = ["openssl-sys", "native-tls", "aws-lc-sys", "async-std", "actix-rt"];

const INHERITED: [&str; 6] =
    ["version", "edition", "rust-version", "license", "repository", "publish"];

/// Which crates may stand before which.
struct Layers {
    rows: Vec<Vec<String>>,
    dev_only: Vec<String>,
}

impl Layers {
    fn of(metadata: &Metadata) -> Outcome<Self> {
        let table = &metadata.workspace_metadata;
        let read = |name: &str| {
            serde_json::from_value(table[name].clone())
                .map_err(Failure::doing(format!("[workspace.metadata] {name}")))
        };
        let dev_only = serde_json::from_value(table["dev-only"].clone())
            .map_err(Failure::doing("[workspace.metadata] dev-only"))?;
        Ok(Self { rows: read("layers")?, dev_only })
    }

    fn row(&self, package: &str) -> Option<usize> {
        let short = short(package);
        self.rows.iter().position(|row| row.iter().any(|name| name == short))
    }

    fn is_dev_only(&self, package: &str) -> bool {
        self.dev_only.iter().any(|name| name == short(package))
    }
}

/// The name in the list of layers: that of the folder.
fn short(package: &str) -> &str {
    package.strip_prefix("stormwire-").unwrap_or(package)
}

/// Every complaint about a manifest.
pub(super) fn complaints() -> Outcome<Complaints> {
    let metadata = metadata()?;
    let mut complaints = order(&metadata)?;
    complaints.extend(owners(&metadata));
    complaints.extend(inheritance(&metadata)?);
    complaints.extend(banned()?);
    Ok(complaints)
}

fn metadata() -> Outcome<Metadata> {
    MetadataCommand::new()
        .manifest_path(workspace_root().join("Cargo.toml"))
        .no_deps()
        .other_options(vec!["--offline".to_owned()])
        .exec()
        .map_err(Failure::doing("cargo metadata"))
}

/// A normal or build dependency points to a strictly earlier row.
fn order(metadata: &Metadata) -> Outcome<Complaints> {
    let layers = Layers::of(metadata)?;
    let mut complaints = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        if layers.is_dev_only(name) {
            continue;
        }
        let Some(row) = layers.row(name) else {
            complaints.push(format!("{name} has no row in [workspace.metadata] layers"));
            continue;
        };
        let last = layers.rows.len() - 1;
        for dependency in own_dependencies(package) {
            let to = &dependency.name;
            let tests_only = dependency.kind == DependencyKind::Development;
            let allowed = if layers.is_dev_only(to) {
                tests_only || row == last
            } else {
                tests_only || layers.row(to).is_some_and(|earlier| earlier < row)
            };
            if !allowed {
                complaints.push(format!("{name} must not depend on {to}: see the order of layers"));
            }
        }
    }
    Ok(complaints)
}

fn own_dependencies(package: &Package) -> impl Iterator<Item = &cargo_metadata::Dependency> {
    package.dependencies.iter().filter(|dependency| dependency.path.is_some())
}

/// Who may name a dependency, and what the pure crates may name at all.
fn owners(metadata: &Metadata) -> Complaints {
    let mut complaints = Vec::new();
    for package in &metadata.packages {
        let name = package.name.as_str();
        let pure = PURE.iter().find(|(pure, _)| *pure == name).map(|(_, allowed)| *allowed);
        for dependency in &package.dependencies {
            if dependency.kind == DependencyKind::Development {
                continue;
            }
            let to = dependency.name.as_str();
            if let Some((_, owners)) = OWNERS.iter().find(|(owned, _)| *owned == to)
                && !owners.contains(&name)
            {
                complaints.push(format!("{name} must not name {to}: that is for {owners:?}"));
            }
            if let Some(allowed) = pure
                && dependency.path.is_none()
                && !allowed.contains(&to)
            {
                complaints.push(format!("{name} must not name {to}: it does no IO"));
            }
        }
    }
    complaints
}

/// Versions stand in the root manifest alone, and every member inherits the rest from there.
fn inheritance(metadata: &Metadata) -> Outcome<Complaints> {
    let mut complaints = Vec::new();
    for package in &metadata.packages {
        let path = &package.manifest_path;
        let text = std::fs::read_to_string(path).map_err(Failure::doing(path))?;
        let manifest: Table = text.parse().map_err(Failure::doing(path))?;
        complaints.extend(
            uninherited(&manifest).into_iter().map(|what| format!("{}: {what}", package.name)),
        );
    }
    Ok(complaints)
}

fn uninherited(manifest: &Table) -> Complaints {
    let inherits = |value: Option<&Value>| {
        value.and_then(|v| v.get("workspace")).and_then(Value::as_bool) == Some(true)
    };
    let mut complaints = Vec::new();
    let package = manifest.get("package");
    for field in INHERITED {
        if !inherits(package.and_then(|p| p.get(field))) {
            complaints.push(format!("package.{field} is not inherited"));
        }
    }
    if !inherits(manifest.get("lints")) {
        complaints.push("lints are not inherited".to_owned());
    }
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        let dependencies = manifest.get(kind).and_then(Value::as_table);
        for (name, value) in dependencies.into_iter().flatten() {
            if !inherits(Some(value)) {
                complaints.push(format!("the version of {name} belongs in the root manifest"));
            }
        }
    }
    complaints
}

fn banned() -> Outcome<Complaints> {
    let path = workspace_root().join("Cargo.lock");
    let lock = std::fs::read_to_string(&path).map_err(Failure::doing(path.display()))?;
    Ok(banned_in(&lock))
}

fn banned_in(lock: &str) -> Complaints {
    BANNED
        .iter()
        .filter(|name| lock.lines().any(|line| line == format!("name = \"{name}\"")))
        .map(|name| format!("{name} has come in: `cargo tree -i {name}` says from where"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_points_to_an_earlier_layer() {
        assert_eq!(order(&metadata().unwrap()).unwrap(), [""; 0]);
    }

    #[test]
    fn a_dependency_is_named_by_its_owners_alone() {
        assert_eq!(owners(&metadata().unwrap()), [""; 0]);
    }

    #[test]
    fn members_inherit_versions_and_lints() {
        assert_eq!(inheritance(&metadata().unwrap()).unwrap(), [""; 0]);
    }

    #[test]
    fn there_is_one_tls_and_one_runtime() {
        assert_eq!(banned().unwrap(), [""; 0]);
    }

    /// The workspace as it would be with one more dependency.
    fn with(package: &str, dependency: &str, kind: &str, path: bool) -> Metadata {
        let mut tree = serde_json::to_value(metadata().unwrap()).unwrap();
        let packages = tree["packages"].as_array_mut().unwrap();
        let package = packages.iter_mut().find(|p| p["name"] == package).unwrap();
        let dependencies = package["dependencies"].as_array_mut().unwrap();
        let mut added = dependencies[0].clone();
        added["name"] = dependency.into();
        added["kind"] = kind.into();
        added["path"] = if path { "/somewhere".into() } else { serde_json::Value::Null };
        dependencies.push(added);
        serde_json::from_value(tree).unwrap()
    }

    #[test]
    fn a_dependency_upwards_is_seen_and_a_test_may_have_it() {
        let upwards = with("stormwire-journal", "stormwire-embedded", "normal", true);
        assert_eq!(order(&upwards).unwrap().len(), 1);
        let sideways = with("stormwire-gateway", "stormwire-messages", "build", true);
        assert_eq!(order(&sideways).unwrap().len(), 1);
        let kit = with("stormwire-gateway", "stormwire-testkit", "normal", true);
        assert_eq!(order(&kit).unwrap().len(), 1);
        let test = with("stormwire-journal", "stormwire-embedded", "dev", true);
        assert_eq!(order(&test).unwrap(), [""; 0]);
    }

    #[test]
    fn a_dependency_of_others_is_seen() {
        let seen = |package: &str, dependency: &str, kind: &str| {
            let complaint = format!("{package} must not name {dependency}:");
            owners(&with(package, dependency, kind, false))
                .iter()
                .any(|c| c.starts_with(&complaint))
        };
        assert!(seen("stormwire-gateway", "async-nats", "normal"));
        assert!(seen("stormwire-core", "tokio", "normal"));
        assert!(!seen("stormwire-gateway", "fred", "dev"));
    }

    #[test]
    fn what_is_not_inherited_is_seen() {
        let manifest: Table =
            "package.version = '1'\n[dependencies]\na = '1'\nb.workspace = true".parse().unwrap();
        let complaints = uninherited(&manifest);
        assert_eq!(complaints.len(), INHERITED.len() + 2, "{complaints:?}");
    }

    #[test]
    fn a_banned_crate_in_the_lock_file_is_seen() {
        assert_eq!(banned_in("[[package]]\nname = \"native-tls\"\n").len(), 1);
    }
}
