//! What processes cost: CPU time and resident memory, read from `/proc`.

use crate::{Failure, Outcome};
use std::time::{Duration, Instant};

/// Ticks of `/proc/*/stat` in a second; Linux fixes it at 100 for programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process under watch, by the name that its figures carry.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) name: String,
    pid: u32,
}

impl std::str::FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pid) = text.split_once('=').ok_or("expected NAME=PID")?;
        let pid = pid.parse().map_err(|_| format!("{pid} is no process id"))?;
        Ok(Self { name: name.to_owned(), pid })
    }
}

/// A reading of a process's clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    at: Instant,
    cpu: Duration,
}

impl Watched {
    /// This process.
    pub(crate) fn own() -> Self {
        Self { name: "generator".to_owned(), pid: std::process::id() }
    }

    pub(crate) fn read(&self) -> Outcome<Reading> {
        let path = format!("/proc/{}/stat", self.pid);
        let stat = std::fs::read_to_string(&path).map_err(Failure::doing(&path))?;
        let cpu = cpu(&stat).ok_or_else(|| Failure::of(format!("{path} reads otherwise")))?;
        Ok(Reading { at: Instant::now(), cpu })
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> Outcome<f64> {
        let path = format!("/proc/{}/status", self.pid);
        let status = std::fs::read_to_string(&path).map_err(Failure::doing(&path))?;
        resident_kib(&status)
            .map(|kib| kib / 1024.0)
            .ok_or_else(|| Failure::of(format!("{path} reads otherwise")))
    }
}

impl Reading {
    /// How many cores were busy since then, on average.
    pub(crate) fn cores_since(&self, earlier: &Self) -> f64 {
        let wall = (self.at - earlier.at).as_secs_f64();
        (self.cpu.saturating_sub(earlier.cpu)).as_secs_f64() / wall.max(f64::MIN_POSITIVE)
    }
}

/// User and system time; the name before them may hold spaces, but ends with the last parenthesis.
fn cpu(stat: &str) -> Option<Duration> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(Duration::from_secs_f64((user + system) / TICKS_PER_SECOND))
}

fn resident_kib(status: &str) -> Option<f64> {
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_does_not_move_the_fields() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0 5 1 1";
        assert_eq!(cpu(stat), Some(Duration::from_secs(3)));
    }

    #[test]
    fn this_process_has_memory_and_a_clock() {
        let own = Watched::own();
        let earlier = own.read().unwrap();
        assert!(own.resident_mib().unwrap() > 0.5);
        assert!(own.read().unwrap().cores_since(&earlier) >= 0.0);
        assert!("gateway=1".parse::<Watched>().is_ok());
        assert!("gateway".parse::<Watched>().is_err());
    }
}
