// SPDX-License-Identifier: Apache-2.0
//! The commands that kind and minikube run in a node, in their order, against Hull under the names that they
//! use: `ctr`, `containerd` and the socket of containerd. kind runs them by `docker exec`; here, a mount
//! namespace with the files of the node image stands for the container. `make kind-vm` has kind itself.

use hull_tests::cri::container;
use hull_tests::crictl::lacks_crictl;
use hull_tests::image::{Image, docker_archive, this_arch};
use hull_tests::layer::Layer;
use hull_tests::shell::{self, Ran};
use hull_tests::{ExpectExt as _, Node, eventually, fixture, paths};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The configuration of containerd that the node image has, which kind patches.
const CONTAINERD_TOML: &str = include_str!("../../scripts/kind/containerd.toml");
/// The configuration of Hull in the node image.
const HULL_TOML: &str = include_str!("../../scripts/kind/hull.toml");
/// crictl's configuration in the node image.
const CRICTL_YAML: &str = include_str!("../../scripts/kind/crictl.yaml");

/// Lays `$1` over /etc, gives /run a file system of its own with the socket `$2` where containerd's would be,
/// and stays until its input ends.
const ENTER: &str = r#"
set -e
mkdir -p "$1/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" /etc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/containerd
[ -z "$2" ] || ln -s "$2" /run/containerd/containerd.sock
echo ready
read -r end || true
"#;

/// The inside of a node of kind. Ended when dropped.
struct Inside {
    holder: Child,
    bin: PathBuf,
}

impl Inside {
    /// `hull_toml` is Hull's own configuration there; without `socket`, nothing listens where containerd would.
    fn of(node: &Node, name: &str, hull_toml: &str, with_socket: bool) -> Self {
        let root = node.host_dir().join(name);
        let (bin, etc) = (root.join("bin"), root.join("etc"));
        for dir in [&bin, &etc.join("hull"), &etc.join("containerd")] {
            fs::create_dir_all(dir).or_fail("create a directory of the node");
        }
        for program in ["ctr", "containerd"] {
            symlink(paths::hull(), bin.join(program)).or_fail("link hull");
        }
        symlink(paths::crictl().or_fail("find crictl"), bin.join("crictl")).or_fail("link crictl");
        for (file, text) in [
            ("hull/config.toml", hull_toml),
            ("containerd/config.toml", CONTAINERD_TOML),
            ("crictl.yaml", CRICTL_YAML),
        ] {
            fs::write(etc.join(file), text).or_fail("write a file of the node");
        }
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", ENTER, "enter"])
            .arg(&root);
        command.arg(if with_socket { node.socket() } else { PathBuf::new() });
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().or_fail("start unshare");
        let mut line = String::new();
        let stdout = holder.stdout.take().or_fail("read the output of unshare");
        let _read = BufReader::new(stdout).read_line(&mut line).or_fail("wait for the node");
        assert_eq!(line, "ready\n", "the mounts of the node failed; see the output of this test");
        Self { holder, bin }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg("--").args(words);
        let path = format!("{}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", self.bin.display());
        command.env_clear().env("PATH", path);
        command
    }

    fn run(&self, words: &[&str]) -> Ran {
        shell::finish(self.command(words).stdin(Stdio::null()))
    }

    /// Runs a command with this on its standard input, as `docker exec -i` does.
    fn feed(&self, words: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().or_fail(format!("start {words:?}"));
        let mut stdin = child.stdin.take().or_fail("open the input of a command");
        // A command that fails early does not read its input; its exit code says more than that.
        let _written = stdin.write_all(input);
        drop(stdin);
        let output = child.wait_with_output().or_fail(format!("wait for {words:?}"));
        Ran {
            code: output.status.code().unwrap_or(128),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// `crictl inspecti`, as kind reads it: the id and the tags.
    fn inspect_image(&self, name: &str) -> Option<(String, Vec<String>)> {
        let ran = self.run(&["crictl", "inspecti", name]);
        if ran.code != 0 {
            return None;
        }
        let of: Value = serde_json::from_str(&ran.stdout).or_fail("parse the output of crictl");
        let tags = of["status"]["repoTags"].as_array().or_fail("find repoTags in it");
        let tags = tags.iter().map(|tag| tag.as_str().or_fail("read a tag").to_owned()).collect();
        Some((of["status"]["id"].as_str().or_fail("find the id in it").to_owned(), tags))
    }

    /// The snapshotter, as kind reads it from `containerd config dump` before it loads an image.
    fn snapshotter(&self) -> String {
        let dumped = self.run(&["containerd", "config", "dump"]).good();
        let parsed: toml::Table = dumped.parse().or_fail("parse the dump as TOML");
        // Of version 3, as of 4.
        assert_eq!(parsed["version"].as_integer(), Some(3), "{dumped}");
        let images = &parsed["plugins"]["io.containerd.cri.v1.images"];
        images["snapshotter"].as_str().or_fail("find the snapshotter in the dump").to_owned()
    }

    /// Starts the daemon under the name of containerd; its log goes to `log`.
    async fn start_daemon(&self, log: &Path) -> Daemon {
        let out = fs::File::options().create(true).append(true).open(log);
        let out = out.or_fail("open the log of the daemon");
        let mut command = self.command(&["containerd"]);
        let daemon = command.stdin(Stdio::null()).stderr(out).spawn().or_fail("start the daemon");
        let daemon = Daemon(daemon);
        eventually("the daemon answers on containerd's socket", || async {
            let ran = self.run(&["crictl", "version"]);
            if ran.code == 0 { Ok(()) } else { Err(ran.stderr) }
        })
        .await;
        daemon
    }

    /// `kind load image-archive`.
    fn load(&self, archive: &[u8]) -> Ran {
        let snapshotter = format!("--snapshotter={}", self.snapshotter());
        let import = ["ctr", "--namespace=k8s.io", "images", "import", "--all-platforms"];
        let words: Vec<&str> = import.into_iter().chain(["--digests", &snapshotter, "-"]).collect();
        self.feed(&words, archive)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        drop(self.holder.wait());
    }
}

/// A daemon under the name of containerd. Killed when dropped, as by a test that fails.
struct Daemon(Child);

impl Daemon {
    /// Ends it as a service manager does.
    fn end(mut self) {
        let pid = i32::try_from(self.0.id()).or_fail("read the number of a process");
        let pid = nix::unistd::Pid::from_raw(pid);
        let sent = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        sent.or_fail("end the daemon");
        assert!(self.0.wait().or_fail("wait for the daemon").success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both do nothing to one that was waited for.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Hull's configuration of `node` without a socket, so that the one of containerd counts.
fn without_socket(node: &Node) -> String {
    let own = fs::read_to_string(node.host_dir().with_file_name("hull.toml"));
    let own = own.or_fail("read the configuration of the node");
    let lines = own.lines().filter(|line| !line.ends_with("hull.sock\""));
    lines.collect::<Vec<_>>().join("\n")
}

/// An image of more bytes than all calls together may have in the daemon's memory.
fn image() -> Image {
    let zeros = vec![0; 70 << 20];
    fixture::busybox_image().with(Layer::new().file("zeros", 0o644, zeros).tar())
}

#[tokio::test]
async fn kind_load_works_as_with_containerd() {
    if lacks_crictl("kind_load_works_as_with_containerd") {
        return;
    }
    let node = Node::start().await;
    let inside = Inside::of(&node, "kind", HULL_TOML, true);
    let (id, name) = (image().pack().id(), "docker.io/library/loaded:1");
    // kind load docker-image: is it there by its id, under which names?
    assert_eq!(inside.inspect_image(&id), None);
    // The name as `docker save` writes it.
    let said = inside.load(&docker_archive(&image(), "loaded:1")).good();
    assert!(said.contains(name), "{said}");
    let (found, tags) = inside.inspect_image(&id).or_fail("find the image by its id");
    assert_eq!((&found, tags), (&id, vec![name.to_owned()]));
    assert_eq!(inside.inspect_image("loaded:1").or_fail("find it by its short name").0, id);
    // The same image under another name of docker's: no second load, only a name.
    let tag =
        ["ctr", "--namespace=k8s.io", "images", "tag", "--force", &id, "docker.io/library/b:2"];
    let _said = inside.run(&tag).good();
    let _said = inside.run(&tag).good();
    let tags = inside.inspect_image(&id).or_fail("find the image by its id").1;
    assert!(tags.contains(&"docker.io/library/b:2".to_owned()) && tags.len() == 2, "{tags:?}");
    let listed = inside.run(&["ctr", "--namespace=k8s.io", "images", "list", "-q"]).good();
    assert!(listed.lines().any(|line| line == name), "{listed}");
    // kind export logs.
    let listed = inside.run(&["crictl", "images"]).good();
    assert!(listed.contains("docker.io/library/loaded"), "{listed}");

    let broken = inside.load(b"not an archive");
    assert!(broken.code != 0 && broken.stderr.contains("error: "), "{broken:?}");
    let cri = node.cri();
    let pod = cri.run_pod("loaded").await.unwrap();
    let said = cri.output(&pod, container("main", "loaded:1", &["echo", this_arch()])).await;
    assert_eq!(said.stdout, format!("{}\n", this_arch()));
}

/// `kind create cluster` with `containerdConfigPatches`: the file is read, changed, written, and the daemon
/// started again.
#[tokio::test]
async fn the_daemon_runs_under_the_name_of_containerd_with_patches_of_its_configuration() {
    let test = "the_daemon_runs_under_the_name_of_containerd_with_patches_of_its_configuration";
    if lacks_crictl(test) {
        return;
    }
    let mut node = Node::start().await;
    let inside = Inside::of(&node, "kind", &without_socket(&node), false);
    let file = "/etc/containerd/config.toml";
    let mut patched: toml::Table = inside.run(&["cat", file]).good().parse().unwrap();
    assert!(matches!(patched["version"].as_integer(), Some(2..=4)), "{patched}");
    let patch = "[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/patched\"\n\
                 [plugins.\"io.containerd.grpc.v1.cri\".containerd]\nsnapshotter = \"native\"\n";
    let patch: toml::Table = patch.parse().unwrap();
    patched["plugins"]["io.containerd.grpc.v1.cri"] =
        patch["plugins"]["io.containerd.grpc.v1.cri"].clone();
    let text = toml::to_string(&patched).unwrap();
    let _said = inside.feed(&["cp", "/dev/stdin", file], text.as_bytes()).good();
    let dumped = inside.run(&["containerd", "config", "dump"]);
    assert!(dumped.stderr.contains("containerd.snapshotter has no effect"), "{dumped:?}");
    assert!(dumped.stdout.contains("config_path = \"/patched\""), "{dumped:?}");
    assert_eq!(inside.snapshotter(), "overlayfs", "not the one that Hull does not have");

    node.terminate();
    let log = node.host_dir().join("containerd.log");
    let daemon = inside.start_daemon(&log).await;
    // `pgrep --exact containerd`, by which kind decides to restart the service.
    let comm = fs::read_to_string(format!("/proc/{}/comm", daemon.0.id())).unwrap();
    assert_eq!(comm, "containerd\n");
    daemon.end();
    let log = fs::read_to_string(&log).unwrap();
    assert!(
        log.contains("has no effect in Hull") && log.contains("containerd.snapshotter"),
        "{log}"
    );
    drop(inside);
    node.start_again().await;
}

/// How minikube edits the configuration of containerd, with its driver `none`.
const MINIKUBE_EDITS: [&str; 6] = [
    r#"s|^( *)sandbox_image = .*$|\1sandbox_image = "registry.k8s.io/pause:3.10.1"|"#,
    r"s|^( *)restrict_oom_score_adj = .*$|\1restrict_oom_score_adj = false|",
    r"s|^( *)SystemdCgroup = .*$|\1SystemdCgroup = false|g",
    r#"s|^( *)conf_dir = .*$|\1conf_dir = "/etc/cni/net.d"|g"#,
    r"/^ *enable_unprivileged_ports = .*/d",
    r#"s|^( *)\[plugins."io.containerd.grpc.v1.cri"\]|&\n\1  enable_unprivileged_ports = true|"#,
];

#[tokio::test]
async fn minikube_finds_and_configures_the_daemon_and_loads_images_as_with_containerd() {
    let test = "minikube_finds_and_configures_the_daemon_and_loads_images_as_with_containerd";
    if lacks_crictl(test) {
        return;
    }
    let mut node = Node::start().await;
    let inside = Inside::of(&node, "minikube", &without_socket(&node), false);
    let _path = inside.run(&["which", "containerd"]).good();
    let version = inside.run(&["containerd", "--version"]).good();
    assert_eq!(version.split_whitespace().nth(2), Some(concat!("v", env!("CARGO_PKG_VERSION"))));
    assert!(inside.run(&["ctr", "--version"]).good().starts_with("ctr hull v"));
    for edit in MINIKUBE_EDITS {
        let _said = inside.run(&["sed", "-i", "-r", edit, "/etc/containerd/config.toml"]).good();
    }
    let dumped = inside.run(&["containerd", "config", "dump"]);
    assert!(dumped.code == 0 && dumped.stderr.is_empty(), "{dumped:?}");
    assert!(dumped.stdout.contains("SystemdCgroup = false"), "{dumped:?}");

    node.terminate();
    let daemon = inside.start_daemon(&node.host_dir().join("containerd.log")).await;
    let json = |words: &[&str]| -> Value {
        let said = inside.run(&[&["crictl", "--timeout=10s"][..], words].concat()).good();
        serde_json::from_str(&said).or_fail("parse the output of crictl")
    };
    let options = &json(&["info"])["config"]["containerd"]["runtimes"]["runc"]["options"];
    assert_eq!(options["SystemdCgroup"], false, "the cgroup driver, for the kubelet");
    minikube_loads_images(&inside, &node);
    let images = json(&["images", "--output", "json"]);
    let tags = images["images"][0]["repoTags"].as_array().cloned().unwrap_or_default();
    assert!(tags.contains(&"docker.io/library/again:2".into()), "{images}");
    daemon.end();
    drop(inside);
    node.start_again().await;
}

/// `minikube image load`, `tag` and `save`.
fn minikube_loads_images(inside: &Inside, node: &Node) {
    let name = "docker.io/library/loaded:1";
    let ctr =
        |words: &[&str]| inside.run(&[&["ctr", "-n=k8s.io", "images"][..], words].concat()).good();
    let exists = || ctr(&["ls", &format!("name=={name}")]).contains(name);
    assert!(!exists());
    let archive = node.host_dir().join("minikube.tar");
    let bytes = docker_archive(&fixture::busybox_image(), name);
    fs::write(&archive, bytes).or_fail("write an archive");
    let archive = archive.display().to_string();
    let _said = ctr(&["import", &archive]);
    assert!(exists());
    let _said = ctr(&["tag", name, "docker.io/library/again:2"]);
    let saved = format!("{archive}.saved");
    let _said = ctr(&["export", &saved, name]);
    assert!(fs::metadata(&saved).or_fail("find the saved archive").len() > 1000);
}
