//! The same servers in containers, where a container engine answers.
//!
//! An image runs with the very command line of the program, in the host's network and with the same
//! folder, so that ports, data and restarts are as without a container.

use crate::server::{Launch, StartError};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use testcontainers::core::Mount;
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{ContainerAsync, GenericImage, ImageExt as _};

/// Whether there is an engine to start containers with; asked once.
pub(crate) fn engine_answers() -> bool {
    static ANSWERS: OnceLock<bool> = OnceLock::new();
    *ANSWERS.get_or_init(|| {
        Command::new("docker")
            .arg("info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}

/// A running container; it is removed when dropped.
#[derive(Debug)]
pub(crate) struct Container(ContainerAsync<GenericImage>);

impl Container {
    pub(crate) async fn start(launch: &Launch, image: &str) -> Result<Self, StartError> {
        let (name, tag) = image.split_once(':').unwrap_or((image, "latest"));
        let folder = launch.folder.display().to_string();
        let executable = launch.program.file_name().unwrap_or_default().to_string_lossy();
        let words = std::iter::once(executable.into_owned()).chain(launch.arguments.clone());
        let mut request = GenericImage::new(name, tag)
            .with_cmd(words)
            .with_network("host")
            .with_mount(Mount::bind_mount(folder.clone(), folder));
        for (name, value) in &launch.environment {
            request = request.with_env_var(name, value);
        }
        let container = request.start().await.map_err(std::io::Error::other)?;
        Ok(Self(container))
    }

    pub(crate) async fn kill(self) {
        // A container that is gone already is as good as killed.
        let _ = self.0.stop_with_timeout(Some(0)).await;
        let _ = self.0.rm().await;
    }

    pub(crate) async fn freeze(&self, frozen: bool) {
        let done = if frozen { self.0.pause().await } else { self.0.unpause().await };
        done.expect("the container engine pauses and resumes");
    }
}
