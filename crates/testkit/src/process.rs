//! Child processes that end with this one, and signals to them and all of their children.
//!
//! Linux tells a child of its parent's death when the *thread* ends that started it, so one thread
//! that lives as long as the process starts them all.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};

type Order = (Command, SyncSender<io::Result<Child>>);

/// Starts the command; `at_death` is the signal that it gets when this process dies.
pub(crate) fn spawn(mut command: Command, at_death: i32) -> io::Result<Child> {
    static SPAWNER: OnceLock<SyncSender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = sync_channel::<Order>(16);
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                // A caller that has gone needs no answer, and the child gets none either.
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    ends_with_this_process(&mut command, at_death);
    command.process_group(0);
    let (reply, answer) = sync_channel(1);
    let gone = |_| io::Error::other("the spawner thread has ended");
    spawner.send((command, reply)).map_err(|_| io::Error::other("the spawner thread has ended"))?;
    answer.recv().map_err(gone)?
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the parent-death signal is set between fork and exec")]
fn ends_with_this_process(command: &mut Command, signal: i32) {
    let parent = std::process::id();
    // SAFETY: only prctl and getppid run between fork and exec; both are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the line above.
            if libc::getppid().cast_unsigned() != parent {
                return Err(io::Error::other("the parent process has ended"));
            }
            Ok(())
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn ends_with_this_process(_command: &mut Command, _signal: i32) {}

/// Sends a signal to a process and to all that descend from it, the parent first; returns them all.
pub(crate) fn signal_tree(pid: u32, signal: i32) -> Vec<u32> {
    let mut tree = vec![pid];
    let mut next = 0;
    while let Some(pid) = tree.get(next).copied() {
        // A stopped process starts no more children, and an ended one has none to name.
        signal_one(pid, libc::SIGSTOP);
        tree.extend(children(pid));
        next += 1;
    }
    for pid in &tree {
        signal_one(*pid, signal);
    }
    tree
}

/// Whether a process runs or is paused; one that has ended and was not waited for does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
}

/// Sends a signal to one process; one that has ended meanwhile is no matter.
#[expect(unsafe_code, reason = "kill(2) has no safe wrapper in the standard library")]
pub(crate) fn signal_one(pid: u32, signal: i32) {
    // SAFETY: kill takes two integers and touches no memory of this process.
    unsafe {
        libc::kill(pid.cast_signed(), signal);
    }
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|line| line.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    #[test]
    fn a_signal_reaches_the_children_too() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo $!; wait"]).stdout(Stdio::piped());
        let mut child = spawn(command, libc::SIGKILL).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let grandchild: u32 = line.trim().parse().unwrap();
        assert_eq!(children(child.id()), [grandchild]);
        assert!(is_alive(grandchild));
        assert_eq!(signal_tree(child.id(), libc::SIGKILL), [child.id(), grandchild]);
        child.wait().unwrap();
        while is_alive(grandchild) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let mut child = std::thread::spawn(|| {
            let mut command = Command::new("cat");
            command.stdin(Stdio::piped());
            spawn(command, libc::SIGKILL).unwrap()
        })
        .join()
        .unwrap();
        assert!(child.try_wait().unwrap().is_none());
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success(), "it ended at the end of its input, by itself");
    }
}
