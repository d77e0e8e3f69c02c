//! The machine: versions, the data directory, the disk, the limits of a process.

use super::Finding;
use crate::config::{Config, Profile};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Syncs measured.
const SYNCS: usize = 40;
/// Slower than this, one journal write at a time holds everything up.
const SYNC_SLOW: Duration = Duration::from_millis(20);
/// Faster than this, the disk does not write before it says so (or is memory).
const SYNC_INCREDIBLE: Duration = Duration::from_micros(20);
/// Files beside the connections: logs, databases, dependencies.
const FILES_BESIDE: u64 = 500;
/// Less free space than this is told.
const SPACE_MIN: u64 = 1 << 30;

/// All checks of the machine.
pub(super) fn check(config: &Config) -> Vec<Finding> {
    let mut findings = vec![version(config), open_files(config)];
    match data_dir(&config.data_dir) {
        Ok(()) => {
            findings.push(Finding::ok("data directory", config.data_dir.display().to_string()));
            findings.push(disk_sync(&config.data_dir));
            findings.extend(space(&config.data_dir));
        }
        Err(error) => findings.push(Finding::fail(
            "data directory",
            format!("{}: {error}", config.data_dir.display()),
            "make it, give it to the user that runs stormwire, or name another one with --data-dir",
        )),
    }
    findings
}

fn version(config: &Config) -> Finding {
    let detail = format!(
        "stormwire {}, {} {}, profile {}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
        config.profile.name()
    );
    if cfg!(debug_assertions) && config.profile == Profile::Production {
        return Finding::warn("version", detail, "this is a debug build: build it with --release");
    }
    Finding::ok("version", detail)
}

/// Makes the folder if it is not there, and tries whether files can be made in it.
fn data_dir(path: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(path)?;
    let probe = path.join(format!(".doctor-{}", uuid::Uuid::new_v4().simple()));
    File::create(&probe)?;
    std::fs::remove_file(probe)
}

fn disk_sync(dir: &Path) -> Finding {
    let path = dir.join(format!(".doctor-{}", uuid::Uuid::new_v4().simple()));
    let times = sync_times(&path);
    let _ = std::fs::remove_file(&path);
    match times {
        Ok(mut times) => {
            times.sort_unstable();
            let (half, worst) = (times[times.len() / 2], times[times.len() - 1]);
            judge_sync(half, worst)
        }
        Err(error) => Finding::fail(
            "disk sync",
            error.to_string(),
            "check the file system of the data directory",
        ),
    }
}

fn sync_times(path: &Path) -> std::io::Result<Vec<Duration>> {
    let mut file = File::create(path)?;
    let block = [0x5a_u8; 4096];
    (0..SYNCS)
        .map(|_| {
            let start = Instant::now();
            file.write_all(&block)?;
            file.sync_data()?;
            Ok(start.elapsed())
        })
        .collect()
}

fn judge_sync(half: Duration, worst: Duration) -> Finding {
    let detail =
        format!("4 KiB written and synced in {half:.1?} (half of {SYNCS}), at worst {worst:.1?}");
    if half > SYNC_SLOW {
        let remedy = "every acknowledgement waits for the disk: use an SSD, or a volume with a write cache that survives a power cut";
        return Finding::warn("disk sync", detail, remedy);
    }
    if half < SYNC_INCREDIBLE {
        let remedy = "no disk is so fast: this is memory, or a volume that acknowledges before it writes; acknowledged events would not survive a power cut";
        return Finding::warn("disk sync", detail, remedy);
    }
    Finding::ok("disk sync", detail)
}

#[expect(unsafe_code, reason = "statvfs has no safe wrapper in the standard library")]
fn space(dir: &Path) -> Option<Finding> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(dir.as_os_str().as_bytes()).ok()?;
    // SAFETY: an all-zero statvfs is a valid value of that plain struct.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends with a zero byte and `stat` lives until the call returns.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut stat) } != 0 {
        return None;
    }
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let detail = format!("{} MiB free", free >> 20);
    Some(if free < SPACE_MIN {
        Finding::warn(
            "disk space",
            detail,
            "a full disk refuses publishes: make room, or move the data directory",
        )
    } else {
        Finding::ok("disk space", detail)
    })
}

#[expect(unsafe_code, reason = "getrlimit has no safe wrapper in the standard library")]
fn open_files(config: &Config) -> Finding {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` lives until the call returns.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Finding::warn("open files", "the limit cannot be read", "ulimit -n shows it");
    }
    judge_files(limit.rlim_cur, limit.rlim_max, config.gateway.connections_max as u64)
}

fn judge_files(soft: u64, hard: u64, connections: u64) -> Finding {
    let detail = format!(
        "{soft} files for this process (at most {hard}), gateway.connections_max = {connections}"
    );
    let needed = connections + FILES_BESIDE;
    if soft >= needed {
        return Finding::ok("open files", detail);
    }
    let remedy = if hard >= needed {
        format!(
            "ulimit -n {needed} before the start, or LimitNOFILE={needed} in the service's unit"
        )
    } else {
        format!(
            "raise the hard limit (LimitNOFILE={needed}), or set gateway.connections_max to {}",
            hard.saturating_sub(FILES_BESIDE)
        )
    };
    Finding::warn("open files", detail, remedy)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn what_was_measured_is_judged_with_a_remedy() {
        let level = |half| judge_sync(half, half).level;
        assert_eq!(level(Duration::from_millis(2)), Level::Ok);
        assert_eq!(level(Duration::from_millis(50)), Level::Warn);
        assert_eq!(level(Duration::from_micros(3)), Level::Warn);
        assert_eq!(judge_files(65_536, 65_536, 20_000).level, Level::Ok);
        assert!(judge_files(1024, 65_536, 20_000).remedy.contains("ulimit -n 20500"));
        assert!(judge_files(1024, 20_000, 20_000).remedy.contains("connections_max to 19500"));
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_a_failure() {
        let file = std::env::temp_dir().join(format!("stormwire-doctor-{}", uuid::Uuid::new_v4()));
        std::fs::write(&file, "").unwrap();
        assert!(data_dir(&file.join("below")).is_err());
        std::fs::remove_file(file).unwrap();
    }
}
