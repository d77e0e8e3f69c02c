//! One server process: started, watched, killed, paused and restarted on the same port.

use crate::binaries::Program;
use crate::process;
use crate::wait::poll;
use parking_lot::Mutex;
use std::fs::File;
use std::future::Future;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take from its start to its first answer; machines under test are busy.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long one question whether it is ready may take.
const PROBE_DEADLINE: Duration = Duration::from_secs(2);
/// How long a server may take to end before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// How much of a server's log a failed test shows.
const TAIL_BYTES: usize = 4_096;

/// Why a server isn't there.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The program isn't on this machine.
    #[error("no {} on this machine; `cargo xtask tools` provides it", .0.executable())]
    Absent(Program),
    /// It was started and does not answer.
    #[error("{name} did not answer within {START_DEADLINE:?}; it said:\n{log}")]
    Silent {
        /// Which server.
        name: String,
        /// The end of its log.
        log: String,
    },
    /// It was started and ended.
    #[error("{name} ended at its start; it said:\n{log}")]
    Ended {
        /// Which server.
        name: String,
        /// The end of its log.
        log: String,
    },
    /// The system said no.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// The program to start; with a container engine its name will do, the image holds it.
pub(crate) fn locate(program: Program) -> Result<PathBuf, StartError> {
    #[cfg(feature = "containers")]
    if crate::container::engine_answers() {
        return Ok(program.executable().into());
    }
    program.find().ok_or(StartError::Absent(program))
}

/// How to start a server, again and again.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Stands in messages and names the log file.
    pub name: String,
    /// What to run.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables that it gets beside those of this process.
    pub environment: Vec<(String, String)>,
    /// Where it works and where its log lies.
    pub folder: PathBuf,
    /// User and group to run as, where this process may change them.
    pub user: Option<(u32, u32)>,
    /// The signal that asks it to end.
    pub stop: i32,
    /// The signal that it gets when this process dies.
    pub at_death: i32,
    /// The image that does the same, `name:tag`.
    pub image: Option<&'static str>,
}

impl Launch {
    /// Runs `program` without arguments in `folder`; asked to end by SIGTERM.
    pub fn new(name: &str, program: impl Into<PathBuf>, folder: &Path) -> Self {
        Self {
            name: name.to_owned(),
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: folder.to_path_buf(),
            user: None,
            stop: libc::SIGTERM,
            at_death: libc::SIGKILL,
            image: None,
        }
    }

    /// With these arguments.
    #[must_use]
    pub fn arguments<A: Into<String>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments = arguments.into_iter().map(Into::into).collect();
        self
    }

    /// With this variable in its environment.
    #[must_use]
    pub fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }
}

#[derive(Debug)]
enum Running {
    Process(Child),
    #[cfg(feature = "containers")]
    Container(Box<crate::container::Container>),
    Not,
}

/// A server process. It ends when this is dropped and when this process ends.
#[derive(Debug)]
pub struct Server {
    launch: Launch,
    running: Mutex<Running>,
}

impl Server {
    /// Makes the handle; nothing runs yet.
    pub fn new(launch: Launch) -> Self {
        Self { launch, running: Mutex::new(Running::Not) }
    }

    /// Starts the process and waits until `ready` says yes.
    ///
    /// # Errors
    /// It can't be started, ends, or is not ready within a minute.
    pub async fn start<F, W>(&self, mut ready: F) -> Result<(), StartError>
    where
        F: FnMut() -> W,
        W: Future<Output = bool>,
    {
        self.launch_now().await?;
        let answered = poll(START_DEADLINE, || {
            let ended = !self.is_running();
            let ready = tokio::time::timeout(PROBE_DEADLINE, ready());
            async move { if ended { Some(false) } else { ready.await.ok()?.then_some(true) } }
        });
        let (name, log) = (self.launch.name.clone(), || self.log_tail());
        match answered.await {
            Some(true) => Ok(()),
            Some(false) => Err(StartError::Ended { name, log: log() }),
            None => Err(StartError::Silent { name, log: log() }),
        }
    }

    async fn launch_now(&self) -> Result<(), StartError> {
        #[cfg(feature = "containers")]
        if crate::container::engine_answers()
            && let Some(image) = self.launch.image
        {
            let container = crate::container::Container::start(&self.launch, image).await?;
            *self.running.lock() = Running::Container(Box::new(container));
            return Ok(());
        }
        let child = process::spawn(self.command()?, self.launch.at_death)?;
        *self.running.lock() = Running::Process(child);
        Ok(())
    }

    fn command(&self) -> std::io::Result<Command> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = Command::new(&self.launch.program);
        command
            .args(&self.launch.arguments)
            .envs(self.launch.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.launch.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if let Some((user, group)) = self.launch.user {
            command.uid(user).gid(group);
        }
        Ok(command)
    }

    /// Its process id; `None` while it is down or lives in a container.
    pub fn pid(&self) -> Option<u32> {
        match &mut *self.running.lock() {
            Running::Process(child) => matches!(child.try_wait(), Ok(None)).then(|| child.id()),
            _ => None,
        }
    }

    /// Whether it has not ended; one that is paused is running.
    pub fn is_running(&self) -> bool {
        match &mut *self.running.lock() {
            Running::Process(child) => matches!(child.try_wait(), Ok(None)),
            #[cfg(feature = "containers")]
            Running::Container(_) => true,
            Running::Not => false,
        }
    }

    /// Ends it and its children at once, as `kill -9` does.
    pub async fn kill(&self) {
        let was = std::mem::replace(&mut *self.running.lock(), Running::Not);
        match was {
            Running::Process(child) => end(child, libc::SIGKILL),
            #[cfg(feature = "containers")]
            Running::Container(container) => container.kill().await,
            Running::Not => {}
        }
    }

    /// Ends it with the signal that suits it, waiting at most 5 s before it is killed.
    pub fn stop(&self) {
        if let Running::Process(child) = std::mem::replace(&mut *self.running.lock(), Running::Not)
        {
            end(child, self.launch.stop);
        }
    }

    /// Sends it the signal that asks it to end, and does not wait: see [`Self::is_running`].
    pub fn terminate(&self) {
        if let Some(pid) = self.pid() {
            process::signal_one(pid, self.launch.stop);
        }
    }

    /// Stops it where it stands: connections stay open and nobody answers.
    pub async fn pause(&self) {
        self.signal(libc::SIGSTOP).await;
    }

    /// Lets it go on after [`Self::pause`].
    pub async fn resume(&self) {
        self.signal(libc::SIGCONT).await;
    }

    async fn signal(&self, signal: i32) {
        match self.pid() {
            Some(pid) => drop(process::signal_tree(pid, signal)),
            None => self.signal_container(signal == libc::SIGSTOP).await,
        }
    }

    #[cfg(feature = "containers")]
    async fn signal_container(&self, freeze: bool) {
        let was = std::mem::replace(&mut *self.running.lock(), Running::Not);
        if let Running::Container(container) = &was {
            container.freeze(freeze).await;
        }
        *self.running.lock() = was;
    }

    #[cfg(not(feature = "containers"))]
    async fn signal_container(&self, _freeze: bool) {}

    /// The file with all that it has written.
    pub fn log_path(&self) -> PathBuf {
        self.launch.folder.join(format!("{}.log", self.launch.name))
    }

    /// The end of what it has written.
    pub fn log_tail(&self) -> String {
        tail(&self.log_path())
    }

    /// The folder that it works in.
    pub(crate) fn folder(&self) -> &Path {
        &self.launch.folder
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprint_tail(&self.launch.name, &self.log_tail());
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows what its servers said")]
fn eprint_tail(name: &str, log: &str) {
    eprintln!("--- the end of the log of {name} ---\n{log}\n---");
}

/// Asks a process to end and kills it, with its children, when it has not after the deadline.
fn end(mut child: Child, signal: i32) {
    if signal != libc::SIGKILL {
        // A paused process takes no other signal than a kill.
        process::signal_tree(child.id(), libc::SIGCONT);
        process::signal_one(child.id(), signal);
        if within_deadline(|| !matches!(child.try_wait(), Ok(None))) {
            return;
        }
    }
    let tree = process::signal_tree(child.id(), libc::SIGKILL);
    let _ = child.wait();
    // Children hold ports and files for a moment longer.
    within_deadline(|| !tree.iter().any(|pid| process::is_alive(*pid)));
}

fn within_deadline(mut done: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + STOP_DEADLINE;
    while !done() {
        if Instant::now() >= until {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    true
}

fn tail(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let from = bytes.len().saturating_sub(TAIL_BYTES);
    String::from_utf8_lossy(&bytes[from..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Folder;

    fn shell(folder: &Folder, script: &str) -> Server {
        let launch = Launch::new("shell", "/bin/sh", folder.path());
        Server::new(launch.arguments(["-c", script]).variable("WORD", "spoken"))
    }

    #[tokio::test]
    async fn a_server_that_ends_at_once_is_an_error_with_its_log() {
        let folder = Folder::temporary("server").unwrap();
        let server = shell(&folder, "echo $WORD; exit 1");
        let error = server.start(std::future::pending).await.unwrap_err();
        assert!(matches!(&error, StartError::Ended { log, .. } if log == "spoken\n"), "{error}");
        assert!(error.to_string().contains("shell ended at its start"));
    }

    #[tokio::test]
    async fn a_paused_server_runs_on_and_can_be_stopped() {
        let folder = Folder::temporary("server").unwrap();
        let server = shell(&folder, "exec sleep 600");
        server.start(|| async { true }).await.unwrap();
        let pid = server.pid().unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        server.pause().await;
        crate::wait_until("it is stopped", Duration::from_secs(5), || {
            let stopped = state().contains(") T ");
            async move { stopped }
        })
        .await;
        assert!(server.is_running());
        server.resume().await;
        server.pause().await;
        server.stop();
        assert!(!server.is_running());
        assert_eq!(server.pid(), None);
        assert!(state().is_empty());
    }

    #[tokio::test]
    async fn a_server_that_ignores_its_signal_is_killed() {
        let folder = Folder::temporary("server").unwrap();
        let server = shell(&folder, "trap '' TERM; echo up; while :; do sleep 1; done");
        let log = server.log_path();
        server
            .start(|| {
                let up = tail(&log) == "up\n";
                async move { up }
            })
            .await
            .unwrap();
        server.stop();
        assert!(!server.is_running());
    }
}
