// SPDX-License-Identifier: Apache-2.0
//! `hull migrate` on the store of a real containerd, which `make baselines` builds: its images were put there by its
//! own client, and pods run on them although no registry has them by that name. It runs only by its name.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use hull_tests::cri::shell;
use hull_tests::shell::{Ran, run};
use hull_tests::{ExpectExt as _, Node, fixture, paths};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

/// Runs the daemon until standard input closes.
const SUPERVISE: &str = r#"
"$1" --config "$2" 2>&1 &
daemon=$!
read -r _
kill "$daemon"
wait "$daemon" 2> /dev/null
"#;
/// The name of the image, at a registry that does not exist.
const NAME: &str = "registry.invalid/app:1";

/// A containerd with all of its files below one directory. Ended when dropped.
struct Containerd {
    supervisor: Child,
    lifeline: Option<ChildStdin>,
    client: PathBuf,
    socket: PathBuf,
}

impl Containerd {
    fn start(programs: &Path, root: &Path) -> Self {
        let socket = root.join("c.sock");
        let text = format!(
            "version = 3\nroot = {:?}\nstate = {:?}\n\
             disabled_plugins = [\"io.containerd.cri.v1.images\", \"io.containerd.cri.v1.runtime\", \
             \"io.containerd.grpc.v1.cri\", \"io.containerd.nri.v1.nri\", \"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = {socket:?}\n[ttrpc]\naddress = {:?}\n",
            root.join("var/lib/containerd"),
            root.join("run"),
            root.join("c.ttrpc"),
        );
        let config = root.join("daemon.toml");
        fs::create_dir_all(root).or_fail("make the directory of containerd");
        fs::write(&config, text).or_fail("write containerd's configuration");
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISE, "containerd"])
            .args([&programs.join("containerd"), &config])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .or_fail("start containerd");
        let lifeline = supervisor.stdin.take();
        let mut log = BufReader::new(supervisor.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains("containerd successfully booted") {
            let read = log.read_line(&mut said).or_fail("read containerd's log");
            assert!(read > 0, "containerd did not start: {said}");
        }
        // Its log must be read on, or it blocks once the pipe is full.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { supervisor, lifeline, client: programs.join("ctr"), socket }
    }

    fn ctr(&self, words: &[&str]) -> Ran {
        let address = self.socket.display().to_string();
        let all = ["-a", &address, "-n", "k8s.io"].into_iter().chain(words.iter().copied());
        run(&self.client, all)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        // The shell ends once the daemon has.
        drop(self.supervisor.wait());
    }
}

#[tokio::test]
async fn pods_run_on_images_of_a_real_containerd() {
    let test = "pods_run_on_images_of_a_real_containerd";
    let programs = std::env::var_os("BASELINES")
        .map_or_else(|| paths::root().join(".cache/baselines"), PathBuf::from);
    if !programs.join("containerd").is_file() || !programs.join("ctr").is_file() {
        return paths::cannot_run(test, "containerd and ctr: run `make baselines`");
    }
    let node = Node::start().await;
    let root = node.host_dir().join("peer");
    let pushed = fixture::busybox();
    let containerd = Containerd::start(&programs, &root);
    let pull = ["images", "pull", "--plain-http", "--snapshotter", "overlayfs", &pushed];
    let _output = containerd.ctr(&pull).good();
    let _output = containerd.ctr(&["images", "tag", &pushed, NAME]).good();
    let _output = containerd.ctr(&["images", "rm", &pushed]).good();
    let place = root.display().to_string();
    let words = ["migrate", "--from", "containerd", "--only", "images", "--root", &place];
    // While it runs and has its database open, and after it has ended.
    let tried = node.hull(&[&words[..], &["--dry-run"]].concat()).good();
    assert!(tried.contains(&format!("{NAME}: ")), "{tried}");
    let _output = containerd.ctr(&["snapshots", "ls"]).good();
    drop(containerd);
    let done = node.hull(&words).good();
    assert!(done.contains(&format!("Images that were taken over:\n  {NAME}: ")), "{done}");
    let cri = node.cri();
    let pod = cri.run_pod("app").await.unwrap();
    let said = cri.output(&pod, shell("main", NAME, "echo $FROM_IMAGE")).await;
    assert_eq!(said.stdout.trim(), "yes", "{said:?}");
    let status = cri.image_status(NAME).await.unwrap().unwrap();
    assert_eq!(status.repo_digests.len(), 1, "{status:?}");
}
