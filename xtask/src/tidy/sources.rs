//! Rules on the text of the tree: what a file begins with, how long it may be, what it may name.

use super::Complaints;
use crate::{Failure, Outcome};
use std::path::{Path, PathBuf};
use stormwire_testkit::workspace_root;

const FILE_LINES_MAX: usize = 500;

/// Where Rust sources are.
const SOURCES: [&str; 4] = ["crates", "services", "load", "xtask"];
/// Folders that hold what was built or fetched.
const SKIPPED: [&str; 3] = ["node_modules", ".git", "stormwire-data"];
/// Files whose text is read for names of machines.
const TEXTS: [&str; 14] = [
    "rs", "toml", "md", "sql", "yaml", "yml", "json", "sh", "lua", "proto", "ts", "js", "vue", "py",
];

/// A word that may stand only in files whose path starts with one of these.
struct Reserved {
    word: &'static str,
    only: &'static [&'static str],
    why: &'static str,
}

const RESERVED: [Reserved; 10] = [
    Reserved {
        word: "sqlx::",
        only: &[
            "crates/sql/",
            "crates/embedded/",
            "crates/archive-postgres/",
            "load/",
            "chaos/src/archive.rs",
            "services/identity/src/store",
            "services/stormwire/tests/",
        ],
        why: "SQL lives in the engines",
    },
    Reserved {
        word: "env::var",
        only: &[
            "services/stormwire/",
            "crates/testkit/",
            "xtask/",
            "load/",
            // A seed to replay, a document to write anew, vectors to try all of.
            "crates/tokens/src/keys/vectors.rs",
            "crates/journal/tests/",
            "crates/wire/tests/",
            "services/gateway/tests/",
            "services/identity/tests/",
        ],
        why: "configuration is handed in",
    },
    Reserved {
        word: "SystemTime::now",
        // The load generator compares the times of several processes.
        only: &["crates/core/src/clock.rs", "load/src/dialect.rs"],
        why: "time is handed in: take a Clock",
    },
    Reserved { word: "OffsetDateTime::now", only: &[], why: "time is handed in: take a Clock" },
    Reserved {
        word: "counter!(\"",
        only: &["crates/telemetry/"],
        why: "names of metrics are constants of telemetry",
    },
    Reserved {
        word: "gauge!(\"",
        only: &["crates/telemetry/"],
        why: "names of metrics are constants of telemetry",
    },
    Reserved {
        word: "histogram!(\"",
        only: &["crates/telemetry/"],
        why: "names of metrics are constants of telemetry",
    },
    Reserved { word: "#[ignore", only: &[], why: "a test runs or is removed" },
    Reserved { word: "[allow(", only: &[], why: "write expect, with a reason" },
    Reserved { word: "unbounded_channel", only: &[], why: "every queue has a bound" },
];

/// Plans belong in issues.
const UNFINISHED: [&str; 3] = ["TODO", "FIXME", "XXX"];

/// Places of one machine or of one network that say nothing to a reader elsewhere.
const PLACES: [&str; 9] = [
    "/work/",
    "/root/",
    "/home/",
    "pypi.org",
    "pythonhosted.org",
    "registry.npmjs",
    "proxy.golang",
    "deb.debian",
    "repo.maven",
];

/// Every complaint about a text.
pub(super) fn complaints() -> Outcome<Complaints> {
    let mut complaints = Vec::new();
    for (path, text) in sources()? {
        complaints.extend(source(&path, &text));
    }
    complaints.extend(places()?);
    Ok(complaints)
}

/// This file quotes every forbidden word.
fn is_this(path: &str) -> bool {
    path == "xtask/src/tidy/sources.rs"
}

fn source(path: &str, text: &str) -> Complaints {
    if is_this(path) {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    // `foo/tests.rs` is described by the module that it tests.
    if !text.starts_with("//!") && !path.ends_with("/tests.rs") {
        complaints.push(format!("{path}: the first line says what the file is for, with `//!`"));
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX {
        complaints.push(format!("{path}: {lines} lines are more than {FILE_LINES_MAX}; divide it"));
    }
    // Beside integration tests `foo.rs` would be a test program of its own.
    if path.ends_with("/mod.rs") && !path.contains("/tests/") {
        complaints.push(format!("{path}: a module is `foo.rs` beside `foo/`"));
    }
    for (index, line) in text.lines().enumerate() {
        complaints.extend(words(path, line).map(|what| format!("{path}:{}: {what}", index + 1)));
    }
    complaints
}

fn words<'a>(path: &'a str, line: &'a str) -> impl Iterator<Item = String> + 'a {
    let code = line.trim_start();
    let is_comment = code.starts_with("//");
    let reserved = RESERVED.iter().filter(move |reserved| {
        !is_comment
            && code.contains(reserved.word)
            && !reserved.only.iter().any(|folder| path.starts_with(folder))
    });
    let unfinished = UNFINISHED.iter().filter(move |word| {
        code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == **word)
    });
    reserved
        .map(|reserved| format!("`{}`: {}", reserved.word, reserved.why))
        .chain(unfinished.map(|word| format!("`{word}`: a plan belongs in an issue")))
}

/// The Rust sources, by their path from the root.
fn sources() -> Outcome<Vec<(String, String)>> {
    let root = workspace_root();
    let mut paths = Vec::new();
    for folder in SOURCES {
        walk(&root.join(folder), &mut paths)?;
    }
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "rs"));
    texts(&root, paths)
}

fn places() -> Outcome<Complaints> {
    let root = workspace_root();
    let mut paths = Vec::new();
    walk(&root, &mut paths)?;
    paths.retain(|path| {
        path.extension().and_then(|kind| kind.to_str()).is_some_and(|kind| TEXTS.contains(&kind))
    });
    let texts = texts(&root, paths)?;
    Ok(texts.iter().flat_map(|(path, text)| places_in(path, text)).collect())
}

fn places_in(path: &str, text: &str) -> Complaints {
    if is_this(path) || path.ends_with("package-lock.json") {
        return Vec::new();
    }
    PLACES
        .iter()
        .filter(|place| text.contains(**place))
        .map(|place| format!("{path}: names the place {place}"))
        .collect()
}

fn texts(root: &Path, paths: Vec<PathBuf>) -> Outcome<Vec<(String, String)>> {
    let mut texts = Vec::new();
    for path in paths {
        let bytes = std::fs::read(&path).map_err(Failure::doing(path.display()))?;
        let shown = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        texts.push((shown, String::from_utf8_lossy(&bytes).into_owned()));
    }
    Ok(texts)
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) -> Outcome {
    let entries = std::fs::read_dir(folder).map_err(Failure::doing(folder.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if path.is_symlink() || name.starts_with("target") || SKIPPED.contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            walk(&path, paths)?;
        } else {
            paths.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_keeps_the_rules() {
        let broken: Complaints =
            sources().unwrap().iter().flat_map(|(path, text)| source(path, text)).collect();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    #[test]
    fn no_text_names_a_machine() {
        let broken = places().unwrap();
        assert!(broken.is_empty(), "{}", broken.join("\n"));
    }

    #[test]
    fn each_rule_sees_what_breaks_it() {
        let broken = |path: &str, text: &str| source(path, text).len();
        assert_eq!(broken("crates/a/src/lib.rs", "use x;\n"), 1);
        assert_eq!(broken("crates/a/src/lib.rs", &format!("//! x\n{}", "\n".repeat(500))), 1);
        assert_eq!(broken("crates/a/src/b/mod.rs", "//! x\n"), 1);
        assert_eq!(broken("crates/a/tests/b/mod.rs", "//! x\n"), 0);
        assert_eq!(broken("crates/a/src/b/tests.rs", "use super::*;\n"), 0);
        let line = |line: &str| format!("//! x\n{line}\n");
        assert_eq!(broken("services/gateway/src/a.rs", &line("sqlx::query(q)")), 1);
        assert_eq!(broken("crates/sql/src/a.rs", &line("sqlx::query(q)")), 0);
        assert_eq!(broken("crates/a/src/a.rs", &line("// sqlx::query is for engines")), 0);
        assert_eq!(broken("crates/a/src/a.rs", &line("std::env::var(\"X\")")), 1);
        assert_eq!(broken("crates/a/src/a.rs", &line("metrics::counter!(\"x\")")), 1);
        assert_eq!(broken("crates/a/src/a.rs", &line("// TODO: later")), 1);
        assert_eq!(broken("crates/a/src/a.rs", &line("#![allow(dead_code)]")), 1);
    }

    #[test]
    fn a_place_of_one_machine_is_seen() {
        assert_eq!(places_in("README.md", "see /root/notes and pypi.org").len(), 2);
        assert_eq!(places_in("README.md", "see the notes"), [""; 0]);
    }
}
