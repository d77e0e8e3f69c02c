//! `cargo xtask tidy`: the rules of this house that no compiler knows.
//!
//! Each rule is a function from the tree to complaints and is a test as well, so plain `cargo test`
//! is the gate.

mod manifests;
mod scenarios;
mod sources;

use crate::{Failure, Outcome};

/// What a rule found wrong, a sentence each; empty when all is well.
type Complaints = Vec<String>;

/// Checks every rule and prints what breaks one.
pub(crate) fn run() -> Outcome {
    let mut complaints = manifests::complaints()?;
    complaints.extend(scenarios::complaints()?);
    complaints.extend(sources::complaints()?);
    if complaints.is_empty() {
        println!("tidy: every rule holds");
        return Ok(());
    }
    Err(Failure::of(format!("{} rules broken:\n{}", complaints.len(), complaints.join("\n"))))
}
