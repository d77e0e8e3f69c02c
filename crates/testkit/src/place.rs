//! Folders for servers' data that go away, whatever becomes of the test process.
//!
//! All folders of a process lie below one. A small shell waits for the end of this process, at the
//! other end of a pipe, and removes that one: drops and exit handlers don't run after a kill.

use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Servers told to end by the death of this process may write for a moment longer.
const REMOVE: &str = "cat > /dev/null; for pause in 0.2 1 2 4; do sleep $pause; rm -rf -- \"$1\" \
                      && [ ! -e \"$1\" ] && break; done";

struct Root {
    path: PathBuf,
    /// Open for as long as this process lives.
    _reaper: Option<ChildStdin>,
}

/// A folder of its own for one server; removed when dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    /// A new, empty folder below the system's place for temporary files.
    pub fn temporary(name: &str) -> std::io::Result<Self> {
        static ROOT: OnceLock<Root> = OnceLock::new();
        Self::below(ROOT.get_or_init(|| Root::make(&std::env::temp_dir())), name)
    }

    /// The same in memory, where there is such a place: for what is not about the disk.
    pub fn in_memory(name: &str) -> std::io::Result<Self> {
        static ROOT: OnceLock<Root> = OnceLock::new();
        let memory = Path::new("/dev/shm");
        if !memory.is_dir() {
            return Self::temporary(name);
        }
        Self::below(ROOT.get_or_init(|| Root::make(memory)), name)
    }

    fn below(root: &Root, name: &str) -> std::io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root.path.join(format!("{name}-{number}"));
        std::fs::create_dir_all(&path)?;
        Ok(Self { path, keep: keep() })
    }

    /// A folder that stays, made if it isn't there.
    pub fn lasting(path: impl Into<PathBuf>) -> std::io::Result<Self> {
        let path = path.into();
        std::fs::create_dir_all(&path)?;
        Ok(Self { path, keep: true })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            // What can't be removed now is removed at the end of the process.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn keep() -> bool {
    std::env::var_os("STORMWIRE_TEST_KEEP").is_some_and(|value| value == "1")
}

impl Root {
    fn make(place: &Path) -> Self {
        let unique = format!("stormwire-{}-{:08x}", std::process::id(), rand::random::<u32>());
        let path = place.join(unique);
        std::fs::create_dir_all(&path).expect("a folder for temporary files can be made");
        let reaper = if keep() { None } else { reaper(&path) };
        Self { path, _reaper: reaper }
    }
}

fn reaper(path: &Path) -> Option<ChildStdin> {
    use std::os::unix::process::CommandExt as _;
    Command::new("sh")
        .args(["-c", REMOVE, "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C ends the test process first.
        .process_group(0)
        .spawn()
        .ok()
        .and_then(|mut child| child.stdin.take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_folder_goes_with_its_handle_and_a_lasting_one_stays() {
        let folder = Folder::temporary("place").unwrap();
        let path = folder.path().to_path_buf();
        std::fs::write(path.join("file"), "x").unwrap();
        let lasting = Folder::lasting(path.join("inner")).unwrap().path().to_path_buf();
        assert!(lasting.is_dir());
        drop(folder);
        assert!(!path.exists());
    }
}
