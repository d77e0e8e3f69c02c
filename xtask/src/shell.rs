//! Running other programs, with their name in every complaint.

use crate::{Failure, Outcome};
use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// A command whose words are given at once.
pub(crate) fn command<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    // What cargo told xtask about itself. A build script that looks at it (ring's does) would make a
    // cargo started from here build everything above it anew.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_MANIFEST_LINKS"] {
        command.env_remove(name);
    }
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_")) {
            command.env_remove(name);
        }
    }
    command
}

/// Tells the person at the terminal how far it is; standard output is for results.
pub(crate) fn progress(what: &str) {
    eprintln!("{what}");
}

/// Runs it in view; anything but success is a failure.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let status = command.status().map_err(Failure::doing(shown(command)))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::of(format!("`{}` ended with {status}", shown(command))))
}

/// Runs it out of view and returns what it wrote; a failure carries what it complained of.
pub(crate) fn read(command: &mut Command) -> Outcome<String> {
    let output = command.output().map_err(Failure::doing(shown(command)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Failure::of(format!("`{}` ended with {}: {complaint}", shown(command), output.status)))
}

/// Whether this program can be started at all.
pub(crate) fn answers(program: &str, arguments: &[&str]) -> bool {
    command(program, arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_writes_comes_back_trimmed() {
        assert_eq!(read(&mut command("echo", &["one", "two"])).unwrap(), "one two");
    }

    #[test]
    fn a_failure_names_the_command_and_its_complaint() {
        let failure = read(&mut command("sh", &["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert!(failure.to_string().contains("sh -c"), "{failure}");
        assert!(failure.to_string().contains("why"), "{failure}");
        assert!(run(&mut command("false", &[] as &[&str])).is_err());
        assert!(run(&mut command("no-such-program", &[] as &[&str])).is_err());
    }

    #[test]
    fn a_program_that_is_not_there_does_not_answer() {
        assert!(answers("true", &[]));
        assert!(!answers("no-such-program", &[]));
    }
}
