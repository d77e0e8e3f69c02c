//! `cargo xtask kube`: the chart before a real Kubernetes API server, and its autoscaling executed by KEDA.
//!
//! The control plane and KEDA are built from their Go modules, at the versions of `charts/kube`; custom
//! resources come from the modules of their projects. What is scaled on is a local cluster under load, read
//! through a Prometheus. `charts/kube/run.py` does the rest.

use super::install::Tools;
use crate::k6::prometheus::Prometheus;
use crate::shell::{self, command};
use crate::tools::debian_package;
use crate::up::{self, cluster::Cluster};
use crate::{Failure, Outcome, tools};
use std::path::{Path, PathBuf};
use stormwire_testkit::workspace_root;

/// Programs: the module of `charts/kube`, the package, the program's name.
const PROGRAMS: [(&str, &str, &str); 4] = [
    ("server", "k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
    ("server", "k8s.io/kubernetes/cmd/kube-controller-manager", "kube-controller-manager"),
    ("keda", "github.com/kedacore/keda/v2/cmd/operator", "keda-operator"),
    ("keda", "github.com/kedacore/keda/v2/cmd/adapter", "keda-adapter"),
];
/// The version that the API server says it is; without it, it is none that clients know.
const SERVER_FLAGS: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
     -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36";
/// Where custom resources are defined: the module, and the folder in it.
const DEFINITIONS: [(&str, &str); 5] = [
    ("github.com/kedacore/keda/v2@v2.21.0", "config/crd/bases"),
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "example/prometheus-operator-crd",
    ),
    ("sigs.k8s.io/gateway-api@v1.4.0", "config/crd/standard"),
    ("github.com/cloudnative-pg/cloudnative-pg@v1.27.0", "config/crd/bases"),
    ("github.com/external-secrets/external-secrets@v0.20.1", "config/crds/bases"),
];

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The dry runs alone, without KEDA and a cluster under load
    #[arg(long)]
    dry_run: bool,
    /// Use this executable instead of building one
    #[arg(long)]
    program: Option<PathBuf>,
}

/// Builds what is not there, and runs it.
pub(crate) fn run(options: &Options) -> Outcome {
    let ops = Tools::provide()?;
    let root = workspace_root();
    if !shell::answers("etcd", &["--version"]) && !debian_package("etcd-server") {
        return Err(Failure::of(
            "etcd is not there and can't be installed without root and apt-get: install etcd-server",
        ));
    }
    let programs = root.join("target/tools/kube");
    for (module, package, name) in PROGRAMS {
        if !(options.dry_run && module == "keda") {
            build(module, package, &programs.join(name))?;
        }
    }
    let (work, definitions) =
        (root.join("target/kube"), root.join("target/tools/kube/definitions"));
    define(&definitions)?;
    let mut script = ops.script("charts/kube/run.py");
    script.arg(&programs).arg(&definitions).arg(&work);
    if options.dry_run {
        return shell::run(&mut script);
    }
    tools::provide()?;
    let program = match &options.program {
        Some(program) => program.clone(),
        None => up::build(true)?,
    };
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::doing("starting a runtime"))?;
    runtime.block_on(scaled(script, &program))
}

fn build(module: &str, package: &str, to: &Path) -> Outcome {
    if to.exists() {
        return Ok(());
    }
    shell::progress(&format!("building {package} ..."));
    let mut go = command("go", &["build", "-mod=readonly", "-trimpath", "-ldflags", SERVER_FLAGS]);
    go.arg("-o").arg(to).arg(package);
    shell::read(go.current_dir(workspace_root().join("charts/kube").join(module))).map(|_| ())
}

/// Puts the definitions of every project into one folder.
fn define(folder: &Path) -> Outcome {
    for (module, part) in DEFINITIONS {
        let name = module.replace(['/', '@'], "-");
        let to = folder.join(&name);
        if to.exists() {
            continue;
        }
        shell::progress(&format!("fetching the custom resources of {module} ..."));
        let said = shell::read(&mut command("go", &["mod", "download", "-json", module]))?;
        let said: serde_json::Value =
            serde_json::from_str(&said).map_err(Failure::doing(module))?;
        let from = said["Dir"].as_str().map(|dir| Path::new(dir).join(part));
        let from = from.ok_or_else(|| Failure::of(format!("{module} was not unpacked: {said}")))?;
        let draft = folder.join(format!("{name}.draft"));
        let _ = std::fs::remove_dir_all(&draft);
        std::fs::create_dir_all(&draft).map_err(Failure::doing(draft.display()))?;
        for entry in std::fs::read_dir(&from).map_err(Failure::doing(from.display()))?.flatten() {
            std::fs::copy(entry.path(), draft.join(entry.file_name()))
                .map_err(Failure::doing(from.display()))?;
        }
        std::fs::rename(&draft, &to).map_err(Failure::doing(to.display()))?;
    }
    Ok(())
}

/// With a cluster beside it, whose figures have the labels that they have in Kubernetes.
async fn scaled(mut script: std::process::Command, program: &Path) -> Outcome {
    let folder = workspace_root().join("target/kube-load");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).map_err(Failure::doing(folder.display()))?;
    let options = up::Options {
        gateways: 2,
        workers: 1,
        identities: 0,
        nats: 1,
        no_sync: true,
        no_respawn: true,
        program: None,
        keep: false,
        debug: true,
        folder: folder.join("cluster"),
        environment: Vec::new(),
    };
    let cluster = Cluster::start(&options, program).await?;
    let outcome = async {
        let targets: Vec<(String, String)> =
            cluster.metrics().into_iter().map(|(name, address)| (pod(&name), address)).collect();
        let prometheus = Prometheus::start(&folder, &targets, "stormwire").await?;
        let load = folder.join("load.json");
        let told = serde_json::json!({
            "prometheus": prometheus.url(),
            "urls": cluster.urls(),
            "token": cluster.token(),
            "postgres": cluster.pid("postgres")?,
        });
        std::fs::write(&load, told.to_string()).map_err(Failure::doing(load.display()))?;
        script.arg("--load").arg(&load);
        let ran = tokio::task::spawn_blocking(move || shell::run(&mut script)).await;
        ran.map_err(Failure::doing("charts/kube/run.py"))?
    };
    let outcome = outcome.await;
    cluster.stop().await;
    outcome
}

/// The name of a pod with this role: `gateway_1` is `stormwire-gateway-1`, a worker one of messages.
fn pod(member: &str) -> String {
    format!("stormwire-{}", member.replace("worker", "messages").replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_called_as_the_charts_pods() {
        assert_eq!(pod("gateway_1"), "stormwire-gateway-1");
        assert_eq!(pod("worker_2"), "stormwire-messages-2");
    }

    #[test]
    fn definitions_are_of_the_versions_that_run() {
        let keda =
            std::fs::read_to_string(workspace_root().join("charts/kube/keda/go.mod")).unwrap();
        let (module, version) = DEFINITIONS[0].0.split_once('@').unwrap();
        assert!(keda.contains(&format!("{module} {version}\n")), "{version}");
        let server = workspace_root().join("charts/kube/server/go.mod");
        let server = std::fs::read_to_string(server).unwrap();
        assert!(server.contains("k8s.io/kubernetes v1.36.3\n"));
        assert!(SERVER_FLAGS.contains("gitVersion=v1.36.3"));
    }
}
