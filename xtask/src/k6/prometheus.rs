//! A Prometheus that scrapes the local cluster with the labels that its operator puts on in Kubernetes, and
//! evaluates the rules that are shipped.

use crate::{Failure, Outcome};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use stormwire_testkit::{Port, http_ok, wait_until, workspace_root};

/// Long enough for two scrapes and an evaluation after the load.
const SETTLE: Duration = Duration::from_secs(12);
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A running one; it ends with this value.
#[derive(Debug)]
pub(crate) struct Prometheus {
    child: Child,
    port: Port,
}

impl Prometheus {
    /// Starts it on the processes' metrics, `(name, address)`.
    pub(crate) async fn start(
        folder: &Path,
        targets: &[(String, String)],
        namespace: &str,
    ) -> Outcome<Self> {
        let home = folder.join("prometheus");
        std::fs::create_dir_all(&home).map_err(Failure::doing(home.display()))?;
        let file = home.join("prometheus.yaml");
        std::fs::write(&file, configuration(targets, namespace))
            .map_err(Failure::doing(file.display()))?;
        let port = Port::reserve().map_err(Failure::doing("a port"))?;
        let mut prometheus = Command::new("prometheus");
        let log = std::fs::File::create(home.join("log")).map_err(Failure::doing("its log"))?;
        let child = prometheus
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", home.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{}", port.number()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .map_err(Failure::doing("prometheus"))?;
        let started = Self { child, port };
        let number = started.port.number();
        wait_until("Prometheus", READY_WITHIN, move || http_ok(number, "/-/ready")).await;
        Ok(started)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port.number())
    }

    /// Waits until what has happened is in it.
    pub(crate) async fn settle(&self) {
        tokio::time::sleep(SETTLE).await;
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(targets: &[(String, String)], namespace: &str) -> String {
    let rules: PathBuf = workspace_root().join("dashboards/rules/*.yaml");
    let mut text = format!(
        "global: {{scrape_interval: 5s, evaluation_interval: 5s}}\nrule_files: [\"{}\"]\n\
         scrape_configs:\n  - job_name: stormwire\n    static_configs:\n",
        rules.display()
    );
    for (name, address) in targets {
        let _ = writeln!(
            text,
            "      - {{targets: [\"{address}\"], labels: {{namespace: {namespace}, pod: {name}}}}}"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_has_its_labels() {
        let text = configuration(&[("gateway_1".to_owned(), "127.0.0.1:9".to_owned())], "local");
        let row = "- {targets: [\"127.0.0.1:9\"], labels: {namespace: local, pod: gateway_1}}";
        assert!(text.contains(row), "{text}");
    }
}
