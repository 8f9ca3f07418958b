// SPDX-License-Identifier: Apache-2.0
//! A case of the zoo, and what it is set up with.

use hull_proto::cri as api;
use hull_tests::cri::{container, image, mount};
use hull_tests::{ExpectExt as _, Node, fixture, shell};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A failure, and what its answer must say.
pub(crate) struct Case {
    /// The failure, as a person would say it.
    pub(crate) name: &'static str,
    /// Makes it fail.
    pub(crate) set: Set,
    /// Words for the place, one of which must be there.
    pub(crate) place: &'static [&'static str],
    /// Words for the cause.
    pub(crate) cause: &'static [&'static str],
    /// Words for the change that fixes it.
    pub(crate) fix: &'static [&'static str],
    /// Words that would lead elsewhere.
    pub(crate) never: &'static [&'static str],
}

/// How a case is set up: a function, or one with text of the test run.
#[derive(Clone)]
pub(crate) enum Set {
    /// Changes the configs.
    Configs(fn(&mut Setup)),
    /// Pulls this image.
    Pull(String),
}

/// The step once the container runs.
pub(crate) enum After {
    /// Waits until it has ended.
    Ended,
    /// Runs a command in it.
    Exec(&'static [&'static str]),
    /// Changes its limits.
    Update(api::LinuxContainerResources),
    /// Changes its limits once it has this file.
    UpdateOnce(&'static str, api::LinuxContainerResources),
    /// Waits until it has this file, and its status a message.
    Once(&'static str),
    /// Stops it once it has this file, with so many seconds of grace.
    StopOnce(&'static str, i64),
}

/// Commands that undo changes to the host, in order; run when it is dropped, so also when a case panics.
#[derive(Default)]
pub(crate) struct Undo(Vec<Vec<String>>);

impl Undo {
    pub(crate) fn by(&mut self, command: &[&str]) {
        self.0.push(command.iter().map(|&word| word.to_owned()).collect());
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        let mut failed = Vec::new();
        // All of them, also after one that fails or cannot be run.
        for command in &self.0 {
            match Command::new(&command[0]).args(&command[1..]).output() {
                Ok(ran) if ran.status.success() => {}
                Ok(ran) => {
                    let stderr = String::from_utf8_lossy(&ran.stderr).into_owned();
                    failed.push(format!("{command:?}: {stderr}"));
                }
                Err(err) => failed.push(format!("{command:?}: {err}")),
            }
        }
        for what in &failed {
            shell::say(&format!("not undone: {what}"));
        }
        assert!(failed.is_empty() || std::thread::panicking(), "{failed:#?}");
    }
}

/// The pod and the container of a case, and a directory of its own on the host.
pub(crate) struct Setup {
    pub(crate) dir: PathBuf,
    pub(crate) seccomp: PathBuf,
    pub(crate) pod: api::PodSandboxConfig,
    pub(crate) handler: &'static str,
    /// `None`: the pod alone is run.
    pub(crate) container: Option<api::ContainerConfig>,
    pub(crate) after: After,
    /// Commands that undo what the case did to the host.
    pub(crate) undo: Undo,
}

impl Setup {
    pub(crate) fn new(node: &Node, number: usize) -> Self {
        let dir = node.host_dir().join(format!("case{number}"));
        fs::create_dir_all(&dir).or_fail("make the directory of a case");
        Self {
            dir,
            seccomp: node.seccomp_dir(),
            pod: node.cri().pod_config(&format!("case{number}")),
            handler: "",
            container: Some(container("main", &fixture::busybox(), &["sleep", "1"])),
            after: After::Ended,
            undo: Undo::default(),
        }
    }

    /// The config of the container.
    pub(crate) fn container(&mut self) -> &mut api::ContainerConfig {
        self.container.as_mut().or_fail("find the container of the case")
    }

    pub(crate) fn command(&mut self, command: &[&str]) {
        self.container().command = command.iter().map(|&word| word.to_owned()).collect();
    }

    pub(crate) fn script(&mut self, script: &str) {
        self.command(&["sh", "-c", script]);
    }

    pub(crate) fn image(&mut self, of_image: &str) {
        self.container().image = Some(image(of_image));
    }

    /// Mounts a path of the host, read-only if it says so.
    pub(crate) fn mount(&mut self, from: &Path, to: &str, readonly: bool) {
        let mount = api::Mount { readonly, ..mount(from, to) };
        self.container().mounts.push(mount);
    }

    /// A directory of the case's own on the host.
    pub(crate) fn host_dir(&self, name: &str) -> PathBuf {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).or_fail("make a directory of a case");
        dir
    }

    /// A file of the case's own on the host.
    pub(crate) fn host_file(&self, name: &str, text: &str) -> PathBuf {
        let file = self.dir.join(name);
        fs::write(&file, text).or_fail("write a file of a case");
        file
    }

    pub(crate) fn resources(&mut self) -> &mut api::LinuxContainerResources {
        hull_tests::cri::resources(self.container())
    }

    pub(crate) fn security(&mut self) -> &mut api::LinuxContainerSecurityContext {
        hull_tests::cri::security(self.container())
    }

    /// Runs the container as this user and group.
    pub(crate) fn user(&mut self, id: i64) {
        let security = self.security();
        security.run_as_user = Some(api::Int64Value { value: id });
        security.run_as_group = Some(api::Int64Value { value: id });
    }

    /// Puts pod and container on the host's network.
    pub(crate) fn host_network(&mut self) {
        let node = api::NamespaceMode::Node.into();
        hull_tests::cri::pod_namespaces(&mut self.pod).network = node;
        self.security().namespace_options.get_or_insert_default().network = node;
    }

    pub(crate) fn sysctl(&mut self, name: &str, value: &str) {
        let linux = self.pod.linux.get_or_insert_default();
        linux.sysctls.insert(name.to_owned(), value.to_owned());
    }
}

#[test]
fn all_changes_are_undone_also_behind_one_that_cannot_be() {
    let dir = tempfile::tempdir().or_fail("make a directory");
    let file = dir.path().join("file");
    fs::write(&file, "").or_fail("write a file");
    let mut undo = Undo::default();
    undo.by(&["false"]);
    undo.by(&["/no/such/program"]);
    undo.by(&["rm", &file.display().to_string()]);
    let undone = std::panic::catch_unwind(|| drop(undo));
    let why = undone.err().or_fail("fail, because two of them failed");
    let why = why.downcast_ref::<String>().or_fail("find why");
    assert!(why.contains("false") && why.contains("/no/such/program"), "{why}");
    assert!(fs::symlink_metadata(&file).is_err(), "the last one has run");
}
