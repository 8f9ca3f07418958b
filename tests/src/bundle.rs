// SPDX-License-Identifier: Apache-2.0
//! An OCI bundle of the busybox fixture with everything of its own: directory, `--root`, cgroup.
//!
//! When it is dropped, what is still there is deleted by force, and the test fails if anything of it
//! (processes, cgroups, mounts, files below `--root`) is left.

use crate::expect::ExpectExt;
use crate::shell::{Ran, names};
use crate::{fixture, host, paths};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A bundle, and the runtime for it.
#[derive(Debug)]
pub struct Bundle {
    /// Holds the bundle (`b`), the runtime's root (`r`), a folder for the test (`t`), output (`out`).
    dir: PathBuf,
    cgroup: String,
}

/// The runtime: `hull oci`, or the program that `HULL_OCI_BIN` names.
#[must_use]
pub fn runtime() -> Command {
    match std::env::var_os("HULL_OCI_BIN") {
        Some(program) => Command::new(program),
        None => {
            let mut hull = Command::new(paths::hull());
            hull.arg("oci");
            hull
        }
    }
}

impl Default for Bundle {
    fn default() -> Self {
        Self::new()
    }
}

impl Bundle {
    /// One whose process sleeps.
    #[must_use]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("oci-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(&name);
        let bundle = Self { dir, cgroup: format!("/hull-{name}") };
        for part in ["b/rootfs", "t", "out"] {
            fs::create_dir_all(bundle.dir.join(part)).or_fail("make a bundle");
        }
        let mut layer = tar::Archive::new(std::io::Cursor::new(fixture::busybox_layer().tar()));
        layer.set_preserve_permissions(true);
        layer.unpack(bundle.dir.join("b/rootfs")).or_fail("unpack busybox");
        let _said = bundle.oci(&["spec", "-b", &bundle.path()]).good();
        bundle.change(|config| {
            config["process"]["terminal"] = false.into();
            config["process"]["args"] = json!(["sleep", "100000"]);
            config["root"]["readonly"] = false.into();
            config["linux"]["cgroupsPath"] = bundle.cgroup.clone().into();
        });
        bundle
    }

    /// One whose process is a shell that runs `script`.
    #[must_use]
    pub fn shell(script: &str) -> Self {
        let bundle = Self::new();
        bundle.change(|config| config["process"]["args"] = json!(["sh", "-c", script]));
        bundle
    }

    /// The directory of config.json.
    #[must_use]
    pub fn path(&self) -> String {
        self.dir.join("b").display().to_string()
    }

    /// A folder of the test's own on the host.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.dir.join("t")
    }

    /// Its cgroup, from the root of each hierarchy.
    #[must_use]
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// Changes the bundle's config.json.
    pub fn change(&self, change: impl FnOnce(&mut Value)) {
        let path = self.dir.join("b/config.json");
        let text = fs::read(&path).or_fail("read config.json");
        let mut config = serde_json::from_slice(&text).or_fail("parse config.json");
        change(&mut config);
        fs::write(&path, config.to_string()).or_fail("write config.json");
    }

    /// The runtime with these words, ready to be run.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = runtime();
        command.arg("--root").arg(self.dir.join("r")).args(words).stdin(Stdio::null());
        command
    }

    /// Runs the runtime to its end. Output goes by way of files, which a container may hold for longer.
    #[must_use]
    pub fn oci(&self, words: &[&str]) -> Ran {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let file = |of: &str| self.dir.join("out").join(format!("{number}.{of}"));
        let open = |of: &str| File::create_new(file(of)).or_fail("make a file for output");
        let mut command = self.command(words);
        let status = command.stdout(open("stdout")).stderr(open("stderr")).status();
        let text = |of: &str| fs::read_to_string(file(of)).or_fail("read output");
        Ran {
            code: status.or_fail("run the runtime").code().unwrap_or(-1),
            stdout: text("stdout"),
            stderr: text("stderr"),
        }
    }

    /// Creates a container.
    #[must_use]
    pub fn create(&self, id: &str) -> Ran {
        self.oci(&["create", "--bundle", &self.path(), id])
    }

    /// Creates and starts one; both must go through.
    #[track_caller]
    pub fn up(&self, id: &str) {
        let _said = self.create(id).good();
        let _said = self.oci(&["start", id]).good();
    }

    /// The state, as the runtime tells it.
    #[track_caller]
    #[must_use]
    pub fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.oci(&["state", id]).good()).or_fail("parse the state")
    }

    /// The status in it.
    #[track_caller]
    #[must_use]
    pub fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().or_fail("find the status").to_owned()
    }

    /// Everything of the bundle on the host, without the runtime's cache of compiled filters.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        let mut left: Vec<String> =
            names(&self.dir.join("r")).into_iter().filter(|name| !name.contains('@')).collect();
        for hierarchy in host::hierarchies() {
            let dir = hierarchy.join(self.cgroup.trim_start_matches('/'));
            if dir.is_dir() {
                let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
                left.push(format!("{} with {procs:?}", dir.display()));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").or_fail("read the mounts");
        let ours = self.dir.display().to_string();
        left.extend(mounts.lines().filter(|line| line.contains(&ours)).map(str::to_owned));
        left.extend(processes(&ours));
        left
    }

    /// Deletes all containers of it.
    pub fn clear(&self) {
        for id in names(&self.dir.join("r")).iter().filter(|name| !name.contains('@')) {
            let _said = self.oci(&["delete", "--force", id]);
        }
    }
}

/// Processes that have `text` in their arguments, this one and its children's shells aside.
fn processes(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for pid in names(Path::new("/proc")).iter().filter(|name| name.parse::<u32>().is_ok()) {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(text) {
            found.push(format!("process {pid}: {line}"));
        }
    }
    found
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.clear();
        let left = self.left();
        let removed = fs::remove_dir_all(&self.dir);
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind: {left:#?}");
            removed.or_fail("remove the bundle");
        }
    }
}
