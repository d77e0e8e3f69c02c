//! `stormwire-checker FOLDER`: judges the histories of a folder and shows the smallest examples.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line program")]

use std::path::PathBuf;
use std::process::ExitCode;
use stormwire_checker::{FolderError, check, explain};

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: stormwire-checker FOLDER");
        return ExitCode::from(64);
    };
    match judge(&folder) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn judge(folder: &std::path::Path) -> Result<bool, FolderError> {
    let verdict = check(folder)?;
    println!("{verdict}");
    for violation in verdict.examples() {
        println!("{}", explain(folder, violation)?);
    }
    Ok(verdict.is_clean())
}
