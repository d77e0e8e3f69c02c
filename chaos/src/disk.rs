//! A disk small enough to be filled: a tmpfs, where this process may mount one.

use crate::{Failure, Outcome};
use std::path::{Path, PathBuf};
use std::process::Command;

const SIZE: &str = "size=320m";

/// Mounted until it is dropped.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one at `path`.
    pub(crate) fn mount(path: &Path) -> Outcome<Self> {
        std::fs::create_dir_all(path).map_err(Failure::doing(path.display()))?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(path);
        let output = mount.output().map_err(Failure::doing("mount"))?;
        if output.status.success() {
            return Ok(Self { path: path.to_path_buf() });
        }
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Failure::Skipped(format!("no small disk can be mounted here: {why}")))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is just ending may still hold a file.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
