//! The rule on `docs/scenarios.md`: every test that it names is there.

use super::Complaints;
use crate::{Failure, Outcome};
use std::path::Path;
use stormwire_testkit::workspace_root;

const DOCUMENT: &str = "docs/scenarios.md";

pub(super) fn complaints() -> Outcome<Complaints> {
    let root = workspace_root();
    let text = std::fs::read_to_string(root.join(DOCUMENT)).map_err(Failure::doing(DOCUMENT))?;
    Ok(missing(&text, &|path| std::fs::read_to_string(root.join(path)).ok()))
}

/// The tests in the last column of the tables that `read` does not find: a file, then functions in it.
fn missing(document: &str, read: &dyn Fn(&Path) -> Option<String>) -> Complaints {
    let rows = document.lines().filter(|line| line.starts_with('|') && line.contains(".rs`"));
    let tests = rows.filter_map(|row| row.trim_end_matches([' ', '|']).rsplit('|').next());
    let mut complaints = Complaints::new();
    for test in tests {
        let mut names = test.split('`').skip(1).step_by(2);
        let path = names.next().unwrap_or_default();
        let source = read(Path::new(path));
        let absent = names.filter(|name| {
            let begin = format!("fn {name}(");
            !source.as_ref().is_some_and(|source| source.contains(&begin))
        });
        complaints.extend(
            absent.map(|name| format!("{DOCUMENT} names {name} in {path}: it is not there")),
        );
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_its_test() {
        assert_eq!(complaints().unwrap(), Complaints::new());
    }

    #[test]
    fn a_test_that_is_not_there_is_seen() {
        let document = "| `a` | shows | `x.rs` `one`, `two` |\n| `b` | shows | `y.rs` `three` |\n";
        let read = |path: &Path| (path == Path::new("x.rs")).then(|| "fn one() {}".to_owned());
        let found = missing(document, &read);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("two") && found[1].contains("three"));
    }
}
