// SPDX-License-Identifier: Apache-2.0
//! A containerd of the test's own: with a root, a state directory and a socket that nobody else has.

use hull_tests::image::digest;
use hull_tests::paths;
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Runs the daemon until standard input closes.
const SUPERVISE: &str = r#"
"$1" --config "$2" 2>&1 &
daemon=$!
read -r _
kill "$daemon"
wait "$daemon" 2> /dev/null
"#;

/// The daemon and its client.
pub(super) struct Programs {
    daemon: PathBuf,
    client: PathBuf,
}

/// Those that `make baselines` has built, or in the directory `BASELINES`.
pub(super) fn programs() -> Option<Programs> {
    let dir = std::env::var_os("BASELINES")
        .map_or_else(|| paths::root().join(".cache/baselines"), PathBuf::from);
    let programs = Programs { daemon: dir.join("containerd"), client: dir.join("ctr") };
    (programs.daemon.is_file() && programs.client.is_file()).then_some(programs)
}

/// A containerd that runs.
pub(super) struct Containerd {
    client: PathBuf,
    socket: PathBuf,
    supervisor: Child,
    lifeline: Option<ChildStdin>,
    views: AtomicU32,
}

impl Containerd {
    pub(super) fn start(programs: &Programs, dir: &Path) -> Self {
        let (config, socket) = (dir.join("containerd.toml"), dir.join("containerd.sock"));
        let text = format!(
            "version = 3\nroot = {:?}\nstate = {:?}\n\
             disabled_plugins = [\"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\", \
             \"io.containerd.grpc.v1.cri\", \"io.containerd.nri.v1.nri\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = {:?}\n[debug]\nlevel = \"info\"\n",
            dir.join("root"),
            dir.join("state"),
            dir.join("containerd.ttrpc"),
        );
        std::fs::write(&config, text).unwrap();
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISE, "containerd"])
            .args([&programs.daemon, &config])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lifeline = supervisor.stdin.take();
        let mut log = BufReader::new(supervisor.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains("containerd successfully booted") {
            let read = log.read_line(&mut said).unwrap();
            assert!(read > 0, "containerd did not start: {said}");
        }
        // Its log must be read on, or it blocks once the pipe is full.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let client = programs.client.clone();
        Self { client, socket, supervisor, lifeline, views: AtomicU32::new(0) }
    }

    fn client(&self, arguments: &[&str]) -> Output {
        let address = self.socket.display().to_string();
        Command::new(&self.client).args(["-a", &address]).args(arguments).output().unwrap()
    }

    /// Pulls an image and unpacks it.
    pub(super) fn pull(&self, reference: &str) -> Result<(), String> {
        let said = self.client(&[
            "images",
            "pull",
            "--plain-http",
            "--snapshotter",
            "overlayfs",
            reference,
        ]);
        if said.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&said.stderr).into_owned())
        }
    }

    /// The directories of an image's layers, topmost first.
    pub(super) fn layers(&self, diff_ids: &[String]) -> Vec<PathBuf> {
        let (first, others) = diff_ids.split_first().unwrap();
        let chain = others
            .iter()
            .fold(first.clone(), |chain, next| digest(format!("{chain} {next}").as_bytes()));
        let key = format!("view-{}", self.views.fetch_add(1, Ordering::Relaxed));
        let view = ["snapshots", "--snapshotter", "overlayfs", "view", "--mounts", &key, &chain];
        let said = self.client(&view);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let mounts: Value = serde_json::from_slice(&said.stdout).unwrap();
        let mount = &mounts[0];
        if mount["Type"] == "bind" {
            return vec![mount["Source"].as_str().unwrap().into()];
        }
        let options = mount["Options"].as_array().unwrap().iter();
        let lower = options.filter_map(|of| of.as_str()?.strip_prefix("lowerdir=")).next();
        lower.unwrap().split(':').map(PathBuf::from).collect()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        // The shell ends once the daemon has.
        drop(self.supervisor.wait());
    }
}
