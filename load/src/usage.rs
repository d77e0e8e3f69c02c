//! What processes cost: CPU time and resident memory, read from `/proc`.

use crate::{Failure, Outcome};
use std::time::{Duration, Instant};

/// Ticks of `/proc/*/stat` in a second; Linux fixes it at 100 for programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processes under watch, by the name that their figures carry.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) name: String,
    pids: Vec<u32>,
}

impl std::str::FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pids) = text.split_once('=').ok_or("expected NAME=PID")?;
        let pid = |pid: &str| pid.parse().map_err(|_| format!("{pid} is no process id"));
        Ok(Self {
            name: name.to_owned(),
            pids: pids.split(',').map(pid).collect::<Result<_, _>>()?,
        })
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
        Self::of("generator", vec![std::process::id()])
    }

    /// Several that count as one.
    pub(crate) fn of(name: &str, pids: Vec<u32>) -> Self {
        Self { name: name.to_owned(), pids }
    }

    pub(crate) fn read(&self) -> Outcome<Reading> {
        let mut all = Duration::ZERO;
        for pid in &self.pids {
            let path = format!("/proc/{pid}/stat");
            let stat = std::fs::read_to_string(&path).map_err(Failure::doing(&path))?;
            all += cpu(&stat).ok_or_else(|| Failure::of(format!("{path} reads otherwise")))?;
        }
        Ok(Reading { at: Instant::now(), cpu: all })
    }

    /// Resident memory in MiB.
    pub(crate) fn resident_mib(&self) -> Outcome<f64> {
        let mut all = 0.0;
        for pid in &self.pids {
            let path = format!("/proc/{pid}/status");
            let status = std::fs::read_to_string(&path).map_err(Failure::doing(&path))?;
            let kib = resident_kib(&status);
            all += kib.ok_or_else(|| Failure::of(format!("{path} reads otherwise")))? / 1024.0;
        }
        Ok(all)
    }
}

/// All that runs on this machine.
#[derive(Debug)]
pub(crate) struct Machine;

impl Machine {
    pub(crate) fn read() -> Outcome<Reading> {
        let stat = std::fs::read_to_string("/proc/stat").map_err(Failure::doing("/proc/stat"))?;
        let cpu = busy(&stat).ok_or_else(|| Failure::of("/proc/stat reads otherwise"))?;
        Ok(Reading { at: Instant::now(), cpu })
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

/// What all cores together spent on anything but waiting: user, nice, system, interrupts.
fn busy(stat: &str) -> Option<Duration> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let fields: Vec<f64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _wait, hard, soft, ..] = fields.as_slice() else { return None };
    Some(Duration::from_secs_f64((user + nice + system + hard + soft) / TICKS_PER_SECOND))
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
    fn waiting_is_not_work() {
        let stat = "cpu  100 20 30 9999 777 40 10 0 0 0\ncpu0 1 2 3\n";
        assert_eq!(busy(stat), Some(Duration::from_secs(2)));
        assert!(Machine::read().is_ok());
    }

    #[test]
    fn this_process_has_memory_and_a_clock() {
        let own = Watched::own();
        let earlier = own.read().unwrap();
        assert!(own.resident_mib().unwrap() > 0.5);
        assert!(own.read().unwrap().cores_since(&earlier) >= 0.0);
        assert!("gateway=1,2".parse::<Watched>().is_ok());
        assert!("gateway".parse::<Watched>().is_err());
    }
}
