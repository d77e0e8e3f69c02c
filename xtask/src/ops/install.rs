//! The checkers of `cargo xtask ops-check`, at versions that `xtask/ops` pins.

use crate::shell::{self, command};
use crate::tools::{debian_package, pip};
use crate::{Failure, Outcome};
use std::path::{Path, PathBuf};
use std::process::Command;
use stormwire_testkit::workspace_root;

/// Go programs: the folder's name, the package, its version.
const GO: [(&str, &str, &str); 2] = [
    ("actionlint", "github.com/rhysd/actionlint/cmd/actionlint", "v1.7.12"),
    ("kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform", "v0.7.0"),
];
/// Programs of Debian's packages, by their package.
const DEBIAN: [(&str, &str); 2] =
    [("promtool", "prometheus"), ("amtool", "prometheus-alertmanager")];

/// Of which version of Kubernetes manifests are.
const CORE_SCHEMAS: &str = "v1.37.0-local-strict";

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// Installs what is not there yet.
    pub(crate) fn provide() -> Outcome<Self> {
        let tools = Self { folder: workspace_root().join("target/tools/ops") };
        tools.python()?;
        tools.node()?;
        for (name, package, version) in GO {
            tools.go(name, package, version)?;
        }
        for (program, package) in DEBIAN {
            if !shell::answers(program, &["--version"]) && !debian_package(package) {
                return Err(Failure::of(format!(
                    "{program} is not there and can't be installed without root and apt-get: install the package {package}"
                )));
            }
        }
        Ok(tools)
    }

    fn python(&self) -> Outcome {
        self.once("python", "requirements.txt", |wanted, folder| {
            let mut pip = pip()?;
            pip.args(["install", "--quiet", "--only-binary=:all:", "--upgrade"])
                .args(["--disable-pip-version-check", "--no-warn-script-location"])
                .args(["--root-user-action=ignore", "--target"])
                .arg(folder)
                .arg("--requirement")
                .arg(wanted);
            shell::read(&mut pip).map(|_| ())
        })
    }

    fn node(&self) -> Outcome {
        self.once("node", "package-lock.json", |wanted, folder| {
            for name in ["package.json", "package-lock.json"] {
                let to = folder.join(name);
                std::fs::copy(wanted.with_file_name(name), &to)
                    .map_err(Failure::doing(to.display()))?;
            }
            // No package may run a script of its own.
            let arguments =
                ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
            shell::read(command("npm", &arguments).current_dir(folder)).map(|_| ())
        })
    }

    /// Installs a set again only when the file that pins it has changed.
    fn once(&self, kind: &str, pins: &str, install: impl Fn(&Path, &Path) -> Outcome) -> Outcome {
        let wanted = workspace_root().join("xtask/ops").join(pins);
        let folder = self.folder.join(kind);
        let stamp = folder.join("installed");
        let pinned = std::fs::read(&wanted).map_err(Failure::doing(wanted.display()))?;
        if std::fs::read(&stamp).is_ok_and(|installed| installed == pinned) {
            return Ok(());
        }
        shell::progress(&format!("fetching the checkers of {pins} ..."));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).map_err(Failure::doing(folder.display()))?;
        install(&wanted, &folder)?;
        std::fs::write(&stamp, pinned).map_err(Failure::doing(stamp.display()))
    }

    fn go(&self, name: &str, package: &str, version: &str) -> Outcome {
        let folder = self.folder.join(format!("{name}-{version}"));
        if folder.join(name).exists() {
            return Ok(());
        }
        shell::progress(&format!("building {name} {version} ..."));
        let mut go = command("go", &["install", &format!("{package}@{version}")]);
        shell::read(go.env("GOBIN", &folder).env("GOFLAGS", "-mod=mod")).map(|_| ())
    }

    /// A program that was built or fetched, with the others on its path.
    pub(crate) fn program(&self, name: &str) -> Command {
        let go = GO.iter().find(|(program, ..)| *program == name);
        let path = match go {
            Some((name, _, version)) => self.folder.join(format!("{name}-{version}")).join(name),
            None if self.python_program(name).exists() => self.python_program(name),
            None => self.folder.join("node/node_modules/.bin").join(name),
        };
        let mut program = if path.exists() {
            command(&path.to_string_lossy(), &[] as &[&str])
        } else {
            command(name, &[] as &[&str])
        };
        self.prepare(&mut program);
        program
    }

    /// The packages of Node.js.
    pub(crate) fn node_modules(&self) -> PathBuf {
        self.folder.join("node/node_modules")
    }

    /// The schemas of Kubernetes' own kinds.
    pub(crate) fn core_schemas(&self) -> PathBuf {
        self.folder.join("python/kubernetes_validate/kubernetes-json-schema").join(CORE_SCHEMAS)
    }

    /// Builds a Go program of this repository and returns where it is.
    pub(crate) fn go_module(&self, folder: &str, name: &str) -> Outcome<PathBuf> {
        let program = self.folder.join(name);
        let mut go = command("go", &["build", "-mod=readonly", "-o"]);
        go.arg(&program).arg(".").current_dir(workspace_root().join(folder));
        shell::read(&mut go).map(|_| program)
    }

    /// A script of this repository in Python.
    pub(crate) fn script(&self, path: &str) -> Command {
        let mut python = command("python3", &[path]);
        self.prepare(&mut python);
        python
    }

    /// A script of this repository in Node.js, which finds the packages that were fetched.
    pub(crate) fn node_script(&self, path: &str) -> Command {
        let mut node = command("node", &[path]);
        self.prepare(&mut node);
        node.env("NODE_PATH", self.node_modules());
        node
    }

    fn python_program(&self, name: &str) -> PathBuf {
        self.folder.join("python/bin").join(name)
    }

    fn prepare(&self, program: &mut Command) {
        let own = std::env::var_os("PATH").unwrap_or_default();
        let folders = [self.folder.join("python/bin"), self.folder.join("node/node_modules/.bin")];
        let path = std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&own)));
        program
            .env("PATH", path.unwrap_or(own))
            .env("PYTHONPATH", self.folder.join("python"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(workspace_root());
    }
}
